/** What one field of a workflow's argument must look like. */
export interface FieldRule {
  readonly required: boolean;
  readonly pattern: RegExp;
  /** For people. */
  readonly form: string;
}

/** The name of a service is also that of a file, and part of workflow ids. */
export const SERVICE_FORM = {
  pattern: /^[a-z0-9][a-z0-9._-]{0,62}$/,
  form: 'lower-case letters, digits, dot, dash, underscore; 63 at most',
} as const;

export const LINE_FORM = {
  pattern: /^[^\s\p{Cc}][^\p{Cc}]{0,127}$/u,
  form: 'one line of 128 characters at most',
} as const;

export type ReadFields =
  | { readonly kind: 'object'; readonly input: Readonly<Record<string, unknown>>; readonly findings: readonly string[] }
  | { readonly kind: 'no-object'; readonly findings: readonly string[] };

/**
 * Reads a workflow's arguments, whatever they are: one flat JSON object of strings is wanted. Names every finding, not the
 * first.
 *
 * @param args all arguments as decoded (a payload that could not be decoded arrives as an object, not as an error)
 */
export function readFields(args: readonly unknown[], rules: Readonly<Record<string, FieldRule>>): ReadFields {
  if (args.length !== 1) {
    return { kind: 'no-object', findings: [`one JSON object is expected as argument, got ${args.length} arguments`] };
  }
  const value = args[0];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { kind: 'no-object', findings: [`the argument must be a JSON object, got ${describe(value)}`] };
  }
  const input = value as Record<string, unknown>;
  const findings: string[] = [];
  for (const [name, rule] of Object.entries(rules)) {
    const field = input[name];
    if (field === undefined || field === null) {
      if (rule.required) findings.push(`"${name}" is missing`);
    } else if (typeof field !== 'string') {
      findings.push(`"${name}" must be a string, got ${describe(field)}`);
    } else if (!rule.pattern.test(field)) {
      findings.push(`"${name}" must be ${rule.form}`);
    }
  }
  for (const name of Object.keys(input)) {
    if (!Object.hasOwn(rules, name)) findings.push(`"${name.slice(0, 60)}" is not a field of a request`);
  }
  return { kind: 'object', input, findings };
}

const describe = (value: unknown): string =>
  value === null ? 'null' : value === undefined ? 'nothing' : Array.isArray(value) ? 'an array' : `a ${typeof value}`;

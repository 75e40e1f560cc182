import { LINE_FORM, readFields, SERVICE_FORM } from './fields.ts';

/** The one argument of the workflow `databaseMigration`: a flat JSON object. */
export interface MigrationRequest {
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly requestedBy: string;
  /** ISO 8601 with a time zone. Without a window it opens at the approval and lasts the profile's `window.length`. */
  readonly windowStart?: string;
  readonly windowEnd?: string;
  /**
   * A revision of the release's graph, `head`, `heads`, `label@head`, or several with commas between them: one a branch.
   * Default `head`, which is refused where there are several.
   */
  readonly targetRevision?: string;
  /** Run id of an earlier run of this service that was terminated, whose leftovers the requester has looked after. */
  readonly reconciledRun?: string;
}

export const WORKFLOW_TYPE = 'databaseMigration';
export const TASK_QUEUE = 'database-migrations';

/** One service has one run: the workflow id is derived from its name. */
export const workflowIdOf = (service: string): string => `migrate-${service}`;

export type ParsedRequest =
  | { readonly kind: 'valid'; readonly request: MigrationRequest }
  | { readonly kind: 'invalid'; readonly findings: readonly string[] };

/** Search attributes over 2,048 bytes end a run on the server, ids are limited to 1,000 characters: every field is bounded far below. */
const FIELDS = {
  service: { required: true, ...SERVICE_FORM },
  releaseTag: { required: true, pattern: /^(?!-)[\w][\w./+@-]{0,127}$/, form: 'a git tag of 128 characters at most' },
  changeTicket: { required: true, ...LINE_FORM },
  requestedBy: { required: true, ...LINE_FORM },
  windowStart: {
    required: false,
    pattern: /^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:?\d\d)$/,
    form: 'a time like 2026-11-22T22:00:00Z',
  },
  windowEnd: {
    required: false,
    pattern: /^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:?\d\d)$/,
    form: 'a time like 2026-11-22T23:00:00Z',
  },
  targetRevision: {
    required: false,
    pattern: /^(?=.{1,500}$)(?!-)[\w.@-]{1,128}(, ?(?!-)[\w.@-]{1,128}){0,19}$/,
    form: 'a revision id, head, heads, label@head, or several of these with commas between them',
  },
  reconciledRun: { required: false, pattern: /^[0-9a-f-]{36}$/, form: 'a Temporal run id' },
} as const;

type FieldName = keyof typeof FIELDS;

/**
 * Reads the workflow's arguments, whatever they are. Names every finding, not the first.
 *
 * @param args all arguments as decoded (a payload that could not be decoded arrives as an object, not as an error)
 * @param now milliseconds since the epoch, by the workflow's clock
 */
export function parseRequest(args: readonly unknown[], now: number): ParsedRequest {
  const read = readFields(args, FIELDS);
  if (read.kind === 'no-object') return { kind: 'invalid', findings: read.findings };
  const { input } = read;
  const findings = [...read.findings];
  findings.push(...windowFindings(input, now));
  if (findings.length > 0) return { kind: 'invalid', findings };
  const request = Object.fromEntries(
    (Object.keys(FIELDS) as FieldName[]).flatMap((name) =>
      typeof input[name] === 'string' ? [[name, input[name]]] : [],
    ),
  ) as unknown as MigrationRequest;
  return { kind: 'valid', request };
}

function windowFindings(input: Readonly<Record<string, unknown>>, now: number): string[] {
  const { windowStart, windowEnd } = input;
  if (windowStart === undefined && windowEnd === undefined) return [];
  if (typeof windowStart !== 'string' || typeof windowEnd !== 'string') {
    return ['a window needs both "windowStart" and "windowEnd"'];
  }
  const start = Date.parse(windowStart);
  const end = Date.parse(windowEnd);
  if (Number.isNaN(start) || Number.isNaN(end))
    return ['"windowStart" and "windowEnd" must be times like 2026-11-22T22:00:00Z'];
  const findings: string[] = [];
  if (end <= start) findings.push(`the window ends (${windowEnd}) before or as it starts (${windowStart})`);
  if (end <= now) findings.push(`the window lies in the past: it ended ${windowEnd}`);
  return findings;
}

/** Finds secrets written into a profile as plain values. The profile travels through histories: they would be published. */
import { type Finding, visitScalars } from './finding.ts';
import { valueAt } from './issue-text.ts';

const ADVICE = 'give a reference instead: {command: [...]}, {environment: NAME} or {file: path}';

/** Shapes that are secrets wherever they stand. */
const SHAPES: readonly { readonly pattern: RegExp; readonly what: string }[] = [
  { pattern: /\b[a-z][a-z0-9+.-]*:\/\/[^\s/?#:@]*:(?!\{\{)[^\s/?#@]+@/i, what: 'an address with a password in it' },
  { pattern: /AGE-SECRET-KEY-/i, what: 'an age identity' },
  { pattern: /-----BEGIN [A-Z ]*PRIVATE KEY-----/, what: 'a private key' },
  { pattern: /\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})/, what: 'an access token' },
  { pattern: /\bxox[abprs]-[\w-]{10,}/, what: 'an access token' },
  { pattern: /\bhooks\.slack\.com\/services\/\w+\/\w+\/\w+/, what: 'a webhook address that is itself a secret' },
  { pattern: /\bAKIA[0-9A-Z]{16}\b/, what: 'an access key' },
  { pattern: /\bpassword\s*=\s*(?!\{\{)[^\s;&]+/i, what: 'a password' },
  {
    pattern: /[?&](token|access_token|api_?key|secret|password|sig|signature)=(?!\{\{)[^&\s]+/i,
    what: 'an address with a secret parameter',
  },
  { pattern: /^--?(password|passwd|token|secret|api-?key)=(?!\{\{).+/i, what: 'a secret as program argument' },
];

const SECRET_WORDS = new Set([
  'password',
  'passwd',
  'pwd',
  'passphrase',
  'token',
  'secret',
  'secrets',
  'credential',
  'credentials',
  'authorization',
  'cookie',
  'apikey',
  'dsn',
]);
const SECRET_PAIRS = new Set(['api key', 'private key', 'secret key', 'access key', 'signing key', 'encryption key']);
/** Below these, names are the service's own vocabulary: expected answers, JSON Pointers, what a reference is made of. */
const NOT_VALUES = new Set(['expect', 'save', 'command']);

export function literalSecrets(document: unknown): Finding[] {
  const findings: Finding[] = [];
  visitScalars(document, (scalar, path) => {
    const shape = typeof scalar === 'string' ? SHAPES.find(({ pattern }) => pattern.test(scalar)) : undefined;
    if (shape) {
      findings.push({ path, message: `is ${shape.what}: ${ADVICE}` });
    } else if (isNamedSecret(path) && typeof scalar !== 'boolean' && !isComposed(String(scalar))) {
      findings.push({ path, message: `holds a secret in plain sight, going by its name: ${ADVICE}` });
    } else if (followsSecretOption(document, path) && !isComposed(String(scalar))) {
      findings.push({ path, message: `is a secret as program argument, going by the option before it: ${ADVICE}` });
    }
  });
  return findings;
}

/** Empty, or made from placeholders: those are filled in where they are used. */
const isComposed = (value: string): boolean => value === '' || /\{\{\s*\w+\s*\}\}/.test(value);

function isNamedSecret(path: readonly PropertyKey[]): boolean {
  const name = path.at(-1);
  if (typeof name !== 'string') return false;
  if (path.slice(0, -1).some((key) => typeof key === 'string' && NOT_VALUES.has(key))) return false;
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== '');
  return SECRET_WORDS.has(words.at(-1) ?? '') || SECRET_PAIRS.has(words.slice(-2).join(' '));
}

function followsSecretOption(document: unknown, path: readonly PropertyKey[]): boolean {
  const index = path.at(-1);
  if (typeof index !== 'number' || index === 0) return false;
  const before = valueAt(document, [...path.slice(0, -1), index - 1]);
  return typeof before === 'string' && /^--?(password|passwd|token|secret|api-?key)$/i.test(before);
}

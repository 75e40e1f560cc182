/** Evidence as people read it: a sentence where one will do, else the document. All of it stands in report.json. Pure. */
import type { StepRecord } from '../contract/status.ts';
import { field } from './production-facts.ts';
import { durationText, sizeText, timeText } from './quantity.ts';

export type ShownEvidence =
  | { readonly kind: 'none' }
  | { readonly kind: 'sentence'; readonly text: string }
  /** Indented JSON, and before it what of it fits into a sentence. */
  | { readonly kind: 'document'; readonly lead: string; readonly text: string };

/** Characters: what is longer is for folding out. */
const SENTENCE_LIMIT = 400;
const PART_LIMIT = 240;
/** A report is for reading; what is longer stands in report.json beside it. */
const DOCUMENT_LIMIT = 8000;

export function shownEvidence({ evidence }: Pick<StepRecord, 'evidence'>): ShownEvidence {
  // Empty objects and lists prove nothing, so there is nothing to show.
  if (evidence === undefined || evidence === null) return { kind: 'none' };
  if (typeof evidence === 'object' && Object.keys(evidence).length === 0) return { kind: 'none' };
  const brief = withoutCopies(evidence);
  const sentence = sentenceOf(brief);
  if (sentence.length <= SENTENCE_LIMIT) return { kind: 'sentence', text: sentence };
  const text = JSON.stringify(brief, null, 2) ?? '';
  return {
    kind: 'document',
    lead: leadOf(brief),
    text:
      text.length <= DOCUMENT_LIMIT
        ? text
        : `${text.slice(0, DOCUMENT_LIMIT)}\n... ${text.length - DOCUMENT_LIMIT} more characters in report.json`,
  };
}

/** What is another part of the report, or a document of its own, is named and not repeated. */
function withoutCopies(evidence: unknown): unknown {
  if (typeof evidence !== 'object' || evidence === null || Array.isArray(evidence)) return evidence;
  const { profile, plan, ...rest } = evidence as Readonly<Record<string, unknown>>;
  if (typeof profile === 'object') {
    return { profile: `of ${String(field(profile, 'service'))}, whole in report.json`, ...rest };
  }
  if (typeof plan === 'object') return rest;
  if ('dumpSha256' in rest && 'manifest' in rest) {
    const { uri, bytes, lsn, rows, tables } = rest;
    return { uri, bytes, lsn, rows, tables };
  }
  return evidence;
}

/** The short facts of a long document. */
function leadOf(value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return '';
  let lead = '';
  for (const part of parts(value).filter((text) => text.length <= PART_LIMIT)) {
    const longer = lead === '' ? part : `${lead}; ${part}`;
    if (longer.length <= SENTENCE_LIMIT) lead = longer;
  }
  return lead;
}

function sentenceOf(value: unknown): string {
  if (Array.isArray(value) || typeof value !== 'object' || value === null) return words(value, '');
  return parts(value).join('; ');
}

const parts = (value: object): string[] =>
  Object.entries(value).flatMap(([key, entry]) => {
    if (isEmptyObject(entry)) return [];
    if (key === 'detail' && typeof entry === 'object' && entry !== null) return parts(entry).join(', ');
    const text = words(entry, key);
    return key === 'milliseconds' || key === 'state' ? [text] : [`${spelled(key)} ${text}`];
  });

function words(value: unknown, key: string): string {
  if (value === null || value === undefined || value === '') return 'none';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number') return numberText(value, key);
  if (typeof value === 'string') return stringText(value);
  if (Array.isArray(value)) {
    const hasObjects = value.some((entry) => typeof entry === 'object');
    return value.map((entry) => words(entry, key)).join(hasObjects ? '; ' : ', ') || 'none';
  }
  return objectText(value as Readonly<Record<string, unknown>>);
}

function objectText(value: Readonly<Record<string, unknown>>): string {
  const { uri, sha256, bytes } = value;
  if (typeof uri === 'string' && typeof sha256 === 'string' && typeof bytes === 'number')
    return `${uri} (${sizeText(bytes)})`;
  if ('systemIdentifier' in value && 'database' in value) {
    const { database, serverVersion, sizeBytes } = value;
    return `${String(database)} (PostgreSQL ${String(serverVersion)}, ${sizeText(Number(sizeBytes))})`;
  }
  const named = NAMES.find((name) => typeof value[name] === 'string');
  if (named === undefined) return `(${parts(value).join(', ')})`;
  const told = Object.entries(value).flatMap(([key, entry]) => {
    if (key === named || entry === null || isEmptyObject(entry)) return [];
    if (key === 'detail' && typeof entry === 'object') return parts(entry);
    return SELF_EVIDENT.has(key) ? words(entry, key) : `${spelled(key)} ${words(entry, key)}`;
  });
  return [String(value[named]), told.join(', ')].filter((text) => text !== '').join(': ');
}

/** Keys that say what an entry of a list is about. */
const NAMES = ['name', 'to', 'relation', 'table', 'state', 'kind'] as const;
const SELF_EVIDENT = new Set(['value', 'answer', 'state', 'milliseconds']);

const DURATIONS = new Set([
  'age',
  'maximumAge',
  'left',
  'ahead',
  'recovery',
  'backup',
  'upgrade',
  'rollback',
  'restore',
  'shutOut',
  'backupAge',
  'data',
  'indexes',
  'compare',
]);

function numberText(value: number, key: string): string {
  if (/milliseconds$/i.test(key) || DURATIONS.has(key))
    return value < 0 ? `-${durationText(-value)}` : durationText(value);
  return /bytes$/i.test(key) ? sizeText(value) : String(value);
}

const stringText = (value: string): string =>
  /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)
    ? timeText(value)
    : /^[0-9a-f]{64}$/.test(value)
      ? value.slice(0, 12)
      : value;

/** `bootMilliseconds` -> `boot`, `lagBytes` -> `lag`, `versionRows` -> `version rows`. */
const spelled = (key: string): string =>
  (key === 'bytes' ? 'size' : key)
    .replace(/(?<=[a-z])(Milliseconds|Bytes)$/, '')
    .replaceAll(/(?<=[a-z0-9])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

const isEmptyObject = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0;

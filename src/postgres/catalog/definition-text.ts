/**
 * One dump and restore changes how PostgreSQL writes some expressions: `status IN ('a', 'b')` on a varchar is shown as
 * `(status)::text = ANY ((ARRAY['a'::character varying, ...])::text[])` before and as
 * `(status)::text = ANY (ARRAY[('a'::character varying)::text, ...])` after. Both mean the same.
 *
 * This normal form leaves out what differs: casts (`::type`), parentheses around a single operand, white space. Operators,
 * names, literals and the grouping of AND and OR stay, so two definitions of equal normal form differ in casts at most.
 */
export function normalizedDefinition(definition: string): string {
  const tokens = tokenized(definition);
  if (tokens === undefined) return definition;
  const reader = { tokens, position: 0 };
  return written(simplified(readItems(reader)));
}

type Item = string | { readonly open: '(' | '['; readonly items: readonly Item[] };

const TOKEN =
  /\s+|(?<string>[eEbBxX]?'(?:[^'\\]|''|\\.)*')|(?<name>"(?:[^"]|"")*"|[\p{L}_][\p{L}\p{N}_$]*)|(?<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?<cast>::)|(?<mark>[()[\],;.])|(?<operator>[-+*/<>=~!@#%^&|`?:$]+\d*)/uy;

/** Undefined when there is something the tokenizer does not know, such as the body of a function in dollar quotes. */
function tokenized(text: string): string[] | undefined {
  if (/\$\w*\$/.test(text)) return undefined;
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const match = TOKEN.exec(text);
    if (match === null) return undefined;
    if (match[0].trim() !== '') tokens.push(match[0]);
  }
  return tokens;
}

interface Reader {
  readonly tokens: readonly string[];
  position: number;
}

function readItems(reader: Reader): Item[] {
  const items: Item[] = [];
  while (reader.position < reader.tokens.length) {
    const token = reader.tokens[reader.position]!;
    if (token === ')' || token === ']') break;
    reader.position += 1;
    if (token === '(' || token === '[') {
      const inner = readItems(reader);
      reader.position += 1;
      items.push({ open: token, items: inner });
    } else if (token === '::') {
      skipType(reader);
    } else {
      items.push(token);
    }
  }
  return items;
}

/** Second words of the built-in types that have more than one: PostgreSQL documentation, "Data Types". */
const LATER_WORDS = new Set([
  'varying',
  'precision',
  'with',
  'without',
  'time',
  'zone',
  'to',
  'year',
  'month',
  'day',
  'hour',
  'minute',
  'second',
]);
const FIRST_WORDS = new Set(['character', 'bit', 'double', 'timestamp', 'time', 'interval', 'national']);

/** `schema.type`, `character varying(10)`, `timestamp(3) without time zone`, each with `[]` behind it. */
function skipType(reader: Reader): void {
  const peek = (): string | undefined => reader.tokens[reader.position];
  const first = peek();
  reader.position += 1;
  while (peek() === '.') reader.position += 2;
  skipModifier(reader);
  if (first !== undefined && FIRST_WORDS.has(first)) {
    while (LATER_WORDS.has(peek() ?? '')) reader.position += 1;
    skipModifier(reader);
  }
  while (peek() === '[' && reader.tokens[reader.position + 1] === ']') reader.position += 2;
}

/** `(10)`, `(10,2)`. */
function skipModifier(reader: Reader): void {
  if (reader.tokens[reader.position] !== '(') return;
  const close = reader.tokens.indexOf(')', reader.position);
  const inner = reader.tokens.slice(reader.position + 1, close);
  if (close > 0 && inner.length > 0 && inner.every((token) => /^\d+$|^,$/.test(token))) reader.position = close + 1;
}

function simplified(items: readonly Item[]): Item[] {
  const result: Item[] = [];
  for (const item of items) {
    if (typeof item === 'string') {
      result.push(item);
      continue;
    }
    const inner = simplified(item.items);
    const before = result.at(-1);
    // Behind a name they are a call, a list of columns, CHECK (...), ANY (...): kept.
    const grouping = item.open === '(' && !(typeof before === 'string' && isName(before));
    if (grouping && isOperand(inner)) result.push(...inner);
    else if (item.open === '(' && inner.length === 1 && isBracketed(inner[0]!, '(')) result.push(inner[0]!);
    else result.push({ open: item.open, items: inner });
  }
  return result;
}

const KEYWORDS = new Set([
  'and',
  'or',
  'not',
  'is',
  'in',
  'like',
  'ilike',
  'between',
  'case',
  'when',
  'then',
  'else',
  'where',
  'select',
  'on',
  'using',
  'having',
  'by',
  'distinct',
  'as',
  'default',
  'from',
]);
const isName = (token: string): boolean =>
  /^["\p{L}_]/u.test(token) && !token.includes("'") && !KEYWORDS.has(token.toLowerCase());
const isBracketed = (item: Item, open: '(' | '['): boolean => typeof item !== 'string' && item.open === open;

/** A literal, a name, `ARRAY[...]`, a call, or something in parentheses: needs none of its own. */
function isOperand(items: readonly Item[]): boolean {
  const [first, second] = items;
  if (first === undefined) return false;
  if (items.length === 1) return typeof first !== 'string' || !KEYWORDS.has(first.toLowerCase());
  return (
    items.length === 2 &&
    typeof first === 'string' &&
    isName(first) &&
    second !== undefined &&
    typeof second !== 'string'
  );
}

const written = (items: readonly Item[]): string =>
  items
    .map((item) =>
      typeof item === 'string' ? item : `${item.open}${written(item.items)}${item.open === '(' ? ')' : ']'}`,
    )
    .join(' ');

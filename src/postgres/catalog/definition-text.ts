/**
 * One dump and restore changes how PostgreSQL writes some expressions: `status IN ('a', 'b')` on a varchar is shown as
 * `(status)::text = ANY ((ARRAY['a'::character varying, ...])::text[])` before and as
 * `(status)::text = ANY (ARRAY[('a'::character varying)::text, ...])` after. Both mean the same.
 *
 * This normal form leaves out what differs: parentheses around a single operand, white space; and writes the cast of an array
 * as casts of its elements. All else stays: two definitions of equal normal form mean the same.
 */
export const sameForm = (definition: string): string => formOf(definition, 'kept');

/**
 * As `sameForm`, and without casts (`::type`): two definitions of equal normal form differ in casts at most. For what nothing
 * but a dump and restore lies between.
 */
export const normalizedDefinition = (definition: string): string => formOf(definition, 'left-out');

function formOf(definition: string, casts: Reader['casts']): string {
  const tokens = tokenized(definition);
  if (tokens === undefined) return definition;
  return written(simplified(readItems({ tokens, casts, position: 0 })));
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
  readonly casts: 'kept' | 'left-out';
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
      const from = reader.position;
      skipType(reader);
      if (reader.casts === 'kept') items.push(`::${reader.tokens.slice(from, reader.position).join(' ')}`);
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
    if (isCast(item)) {
      cast(result, item);
      continue;
    }
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

const isCast = (item: Item | undefined): item is string => typeof item === 'string' && item.startsWith('::');

/** Casts the operand at the end of `items`; the elements of an array one by one. */
function cast(items: Item[], type: string): void {
  const last = items.at(-1);
  if (last === type) return;
  if (last !== undefined && isBracketed(last, '[') && isArrayWord(items.at(-2)) && type.endsWith(ARRAY_OF)) {
    items.pop();
    items.push({ open: '[', items: elementsCast(last, type) });
  } else items.push(type);
}

const ARRAY_OF = ' [ ]';
const isArrayWord = (item: Item | undefined): boolean => item === 'ARRAY';

function elementsCast(array: Item, type: string): Item[] {
  const result: Item[] = [];
  let element: Item[] = [];
  const finish = (): void => {
    if (element.length > 0 && isArrayWord(element[0])) cast(element, type);
    else if (element.length > 0) {
      if (!isOperand(element)) element = [{ open: '(', items: element }];
      cast(element, type.slice(0, -ARRAY_OF.length));
    }
    result.push(...element);
    element = [];
  };
  for (const item of typeof array === 'string' ? [] : array.items) {
    if (item !== ',') {
      element.push(item);
      continue;
    }
    finish();
    result.push(item);
  }
  finish();
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

/** A literal, a name, `ARRAY[...]`, a call, or something in parentheses, and casts of it: needs none of its own. */
function isOperand(given: readonly Item[]): boolean {
  const items = given.slice(0, given.findLastIndex((item) => !isCast(item)) + 1);
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

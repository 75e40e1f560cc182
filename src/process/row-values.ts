/**
 * What programs that talk to PostgreSQL write, without the values of rows that come with it: the server puts them into the
 * details of an error, SQLAlchemy puts statement and parameters behind it. Names of tables, columns and constraints stay.
 */
import { SqlLines } from './sql-lines.ts';

/** Fields of the server's messages that quote rows or statements, as libpq writes them in the languages it speaks. */
const FIELDS = [
  'DETAIL|CONTEXT|QUERY|STATEMENT|ZUSATZ|KONTEXT|ANFRAGE|ANWEISUNG|DÉTAIL|CONTEXTE|REQUÊTE|INSTRUCTION',
  'DETALLE|CONTEXTO|CONSULTA|SENTENCIA|DETTAGLI|CONTESTO|ISTRUZIONE|DETALHE|COMANDO',
  'ПОДРОБНОСТИ|КОНТЕКСТ|ЗАПРОС|ОПЕРАТОР|SZCZEGÓŁY|KONTEKST|ZAPYTANIE|WYRAŻENIE|詳細|文脈|問い合わせ|描述|上下文|查询|语句',
].join('|');

/** Before the text proper: the name that a container's log begins with, pytest's mark of an error. */
const LEAD = String.raw`(?:\S+\s*\|)?\s*(?:E\s+)?`;

const FIELD_AT_START = new RegExp(`^${LEAD}(?<field>${FIELDS}) ?:`);
/** Of a line that a logger or \`repr\` has made of several. */
const FIELD_INSIDE = new RegExp(`(?:(?<!\\p{L})|(?<=\\\\n))(?<field>${FIELDS}) ?:  `, 'u');
const PARAMETERS = '[parameters: ';
/** The parameters that an engine with `echo` logs. */
const ECHOED_PARAMETERS =
  /\[(?:generated in|cached since|no key|raw sql|caching disabled|dialect [^\]]* does not support caching)[^\]]*\]/;
/** A row that an engine with `echo="debug"` logs. */
const ECHOED_ROW = /\bsqlalchemy\.engine\S*\s*Row \(/;
const ECHOED_SQL =
  /\b(?:INFO|DEBUG)\b.{0,80}?\bsqlalchemy\.engine\.[\w.]+[\]:]*\s*|\bsqlalchemy\.engine\.[\w.]+\W+(?:INFO|DEBUG)\W+/;
const QUOTED_SQL = '[SQL: ';
/** The server's excerpt of the statement; dots where it is cut. */
const EXCERPT = new RegExp(`^${LEAD}(?:LINE|ZEILE|LIGNE|LÍNEA|RIGA|LINHA|СТРОКА|LINIA|行) \\d+ ?: `);
/** pg8000 shows the fields of an error as a dictionary. */
const FIELD_OF_DICTIONARY = /(?<name>'[DWqp]'): (?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)/g;
const IS_DICTIONARY = /'C': '[0-9A-Z]{5}'/;
/** Messages that quote a value themselves (PostgreSQL source, `utils/adt`), up to the value. */
const QUOTING =
  /\b(?:invalid input (?:syntax|value) for [^:]+|malformed \w+ literal|field value out of range|invalid \w+ (?:digit|symbol|sequence)): "/;
const OUT_OF_RANGE = /(?:\b(?<what>value|timestamp|date) )?"[^"]*" is out of range for type/g;

/** What cannot be in the middle of a value: here the next thing begins, whatever was open. */
const BEGINS_ANEW = new RegExp(
  `^${LEAD}(?:${[
    String.raw`Traceback \(most recent call last\):`,
    'The above exception was the direct cause',
    'During handling of the above exception',
    String.raw`\(Background on this error at`,
    String.raw`\[SQL: |\[parameters: `,
    '(?:HINT|HINWEIS|ASTUCE|LOCATION):',
    `(?:${FIELDS}) ?:`,
    String.raw`(?:INFO|DEBUG|WARN(?:I|ING)?|ERROR|CRITI(?:CAL)?)\s+\[`,
    String.raw`(?:INFO|DEBUG|WARNING|ERROR|CRITICAL):`,
    String.raw`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]\d+ `,
  ].join('|')})`,
);

const MARK = ' [cut]';

/** What the lines before have left open. */
type Open =
  /** A value that goes on, until a line that ends so. */
  { readonly kind: 'value'; readonly end: RegExp | undefined } | { readonly kind: 'sql'; readonly sql: SqlLines };

/**
 * For the lines of one stream, in order; whatever is open between two of them is a few words, so memory is bounded.
 *
 * @returns for each line what may be shown of it, `?` for what is struck out; undefined where nothing but values is left
 */
export function rowValueFilter(): (line: string) => string | undefined {
  let open: Open | undefined;

  const strike = (line: string): string | undefined => {
    if (open !== undefined && BEGINS_ANEW.test(line)) open = undefined;
    if (open?.kind === 'value') {
      if (open.end?.test(line)) open = undefined;
      return undefined;
    }
    if (open?.kind === 'sql') return within(line, open.sql);
    return fresh(line);
  };

  const within = (line: string, sql: SqlLines): string | undefined => {
    const { shown, rest } = sql.strike(line);
    if (rest === undefined) return shown === '' ? undefined : shown;
    open = undefined;
    return shown + (fresh(rest) ?? '');
  };

  /** From `at` on there is nothing but a value, which goes on unless the line has come to its end. */
  const cutAt = (line: string, at: number, end: RegExp, instead: string): string => {
    const [before, value] = divided(line, at);
    const head = fresh(before) ?? '';
    open = end.test(value) ? undefined : { kind: 'value', end };
    return `${head}${instead}`;
  };

  const fresh = (line: string): string | undefined => {
    const parameters = line.indexOf(PARAMETERS);
    if (parameters >= 0) return cutAt(line, parameters, PARAMETERS_END, `${PARAMETERS}?]`);
    const echoed = ECHOED_PARAMETERS.exec(line);
    if (echoed) return cutAt(line, echoed.index, ECHOED_END, `${echoed[0]} ?`);
    const row = ECHOED_ROW.exec(line);
    if (row) return `${line.slice(0, row.index)}${row[0]}?)`;
    const quoted = line.indexOf(QUOTED_SQL);
    if (quoted >= 0) return begin(line, quoted + QUOTED_SQL.length, 'in-brackets');
    const field = FIELD_AT_START.exec(line) ?? FIELD_INSIDE.exec(line);
    if (field) return serverField(line, field);
    const excerpt = EXCERPT.exec(line);
    if (excerpt) return excerpt[0] + excerptOf(line.slice(excerpt[0].length));
    const echo = ECHOED_SQL.exec(line);
    if (echo) return begin(line, echo.index + echo[0].length, 'to-next-entry');
    return message(line);
  };

  const begin = (line: string, at: number, extent: 'in-brackets' | 'to-next-entry'): string => {
    const sql = new SqlLines(extent);
    open = { kind: 'sql', sql };
    return (message(line.slice(0, at)) ?? '') + (within(line.slice(at), sql) ?? '');
  };

  const message = (line: string): string | undefined => {
    const quoting = QUOTING.exec(line);
    if (quoting) {
      const [head, value] = divided(line, quoting.index + quoting[0].length);
      open = QUOTED_END.test(value) ? undefined : { kind: 'value', end: QUOTED_END };
      return `${head}?"`;
    }
    const dictionary = IS_DICTIONARY.test(line)
      ? line.replaceAll(FIELD_OF_DICTIONARY, (_all, name: string) => `${name}: '?'`)
      : line;
    return dictionary.replaceAll(
      OUT_OF_RANGE,
      (_all, what?: string) => `${what === undefined ? '' : `${what} `}"?" is out of range for type`,
    );
  };

  const serverField = (line: string, field: RegExpExecArray): string => {
    const at = field.index + field[0].length;
    const text = line.slice(at).trimStart();
    const shape = SHAPES.find(({ is }) => is.test(text));
    const end = shape === undefined ? undefined : shape.end;
    // A line made of several holds all of it, and is not to swallow those after it.
    const isWhole = !FIELD_AT_START.test(line) || (end !== undefined && end.test(text));
    open = isWhole ? undefined : { kind: 'value', end };
    return `${line.slice(0, at).trimEnd()}  ${shape === undefined ? '?' : shape.shown(text)}`;
  };

  return (line) => {
    const shown = strike(line);
    return shown === undefined || !line.endsWith(MARK) || shown.endsWith(MARK) ? shown : `${shown}${MARK}`;
  };
}

const divided = (line: string, at: number): [string, string] => [line.slice(0, at), line.slice(at)];

const PARAMETERS_END = /[)}\]]\]\s*$/;
const ECHOED_END = /[)}\]]\s*$/;
const QUOTED_END = /"\s*$/;
const ANY = /^/;

interface Shape {
  readonly is: RegExp;
  /** How its last line ends. */
  readonly end: RegExp;
  readonly shown: (text: string) => string;
}

/** Details whose words are known, by the first line of them (PostgreSQL source, `errdetail`). All others are struck out whole. */
const SHAPES: readonly Shape[] = [
  {
    is: /^Key \(.*?\)=\(/,
    end: / (?:already exists|is duplicated|conflicts with (?:existing )?key \(.*\)=\(.*\)|is (?:not present in|still referenced from) table ".*")\.\s*$/,
    shown: (text) => {
      const tail =
        / (?:already exists|is duplicated|conflicts with (?:existing )?key|is (?:not present in|still referenced from) table "(?:[^"]|"")*")(?= \(|\.\s*$)/.exec(
          text,
        );
      return `${/^Key \(.*?\)=\(/.exec(text)![0]}?)${tail === null ? '' : `${tail[0]}.`}`;
    },
  },
  { is: /^Failing row contains \(/, end: /\)\.\s*$/, shown: () => 'Failing row contains (?).' },
  {
    is: /^Partition key of the failing row contains \(.*?\) = \(/,
    end: /\)\.\s*$/,
    shown: (text) => `${/^.*?\) = \(/.exec(text)![0]}?).`,
  },
  /** Names of objects, which say what is in the way. */
  {
    is: /^(?:[a-z][a-z ]* (?:"[^"]*"|\S)+ depends on [a-z]|drop cascades to [a-z])/,
    end: ANY,
    shown: (text) => text,
  },
  /** A deadlock. */
  { is: /^Process \d+ waits for \w+ on [a-z]+ [\d(]/, end: ANY, shown: (text) => text },
  { is: /^(?:PL\/\w+|SQL) function /, end: ANY, shown: (text) => text },
  { is: /^while \w+ing (?:tuple|index tuple|an index|the index)\b/, end: ANY, shown: (text) => text },
  { is: /^SQL statement "/, end: /"\s*$/, shown: () => 'SQL statement "?"' },
  {
    is: /^COPY (?:"[^"]*"|[^\s,"])+, line \d+/,
    end: /(?:"|line \d+)\s*$/,
    shown: (text) => text.replace(/: ".*$/, ': "?"'),
  },
];

/** What is cut at its beginning may begin within a value. */
const excerptOf = (text: string): string =>
  text.startsWith('...') ? '...?' : new SqlLines('to-next-entry').strike(text).shown;

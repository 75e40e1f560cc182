/** From the statements of an upgrade to a script that a linter can read, and back from its lines to the statements. */

export interface LintedStatement {
  readonly revision: string | null;
  /** As it was executed; literals may be struck out. */
  readonly statement: string;
  /** Statements that share a transaction share the number. Absent: they do wherever they can. */
  readonly transaction?: number;
}

export interface MigrationScript {
  readonly text: string;
  /** Index of the statement at a line (from 0); -1: a line of ours. */
  readonly statementAt: readonly number[];
}

/** What PostgreSQL runs outside a transaction only, and what ends one. */
const outsideTransaction =
  /(^|;)\s*(COMMIT|END|ROLLBACK|ABORT|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION|VACUUM|(CREATE|DROP)\s+(DATABASE|TABLESPACE)|ALTER\s+SYSTEM|REINDEX\s+(DATABASE|SYSTEM))\b|\bCONCURRENTLY\b/i;

/** Alembic's own bookkeeping: nobody's migration. */
const versionTable =
  /^\s*(CREATE\s+TABLE\s+\S+\s*\(\s*version_num\s+VARCHAR\(\d+\)|(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+\S+\s[^;]*\bversion_num\b)/i;

/** Whether Alembic itself executes this to keep its version table. */
export const isBookkeeping = (statement: string): boolean => versionTable.test(statement);

/**
 * The statements as a script: those that share a transaction stand between BEGIN and COMMIT, because some findings hold
 * inside a transaction only and some only outside. Index in the result = index in the argument.
 */
export function migrationScript(statements: readonly LintedStatement[]): MigrationScript {
  const lines: string[] = [];
  const statementAt: number[] = [];
  const add = (text: string, statement: number): void => {
    for (const line of text.split('\n')) {
      lines.push(line);
      statementAt.push(statement);
    }
  };
  let open: string | undefined;
  for (const [index, statement] of statements.entries()) {
    const transaction = transactionOf(statement);
    if (transaction !== open) {
      if (open !== undefined) add('COMMIT;', -1);
      if (transaction !== undefined) add('BEGIN;', -1);
      open = transaction;
    }
    // On a line of its own, so that a comment at the end does not swallow it.
    add(`${statement.statement.replace(/[;\s]+$/, '')}\n;`, index);
  }
  if (open !== undefined) add('COMMIT;', -1);
  return { text: `${lines.join('\n')}\n`, statementAt };
}

const transactionOf = ({ statement, transaction }: LintedStatement): string | undefined =>
  outsideTransaction.test(statement) ? undefined : String(transaction ?? '');

const quoted = /'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$[\s\S]*?\$\1\$|--[^\n]*|\/\*[\s\S]*?\*\//g;

/**
 * The statement with the places where a driver puts values (`%(name)s`, `%s`, `:name`, `?`) as PostgreSQL has them (`$1`):
 * for a statement that cannot be read otherwise. What stands in quotes is left alone but for doubled percent signs.
 */
export function withPlaceholders(statement: string): string {
  let rest = 0;
  let text = '';
  for (const match of statement.matchAll(quoted)) {
    text += replaceMarks(statement.slice(rest, match.index)) + match[0].replaceAll('%%', '%');
    rest = match.index + match[0].length;
  }
  return text + replaceMarks(statement.slice(rest));
}

const replaceMarks = (sql: string): string =>
  sql
    .replaceAll(/%(\(\w+\))?[sbt]/g, '$$1')
    .replaceAll('%%', '%')
    .replaceAll(/(?<![:\w]):[A-Za-z_]\w*/g, '$$1')
    .replaceAll(/(?<=[\s(,=])\?(?=[\s),;:]|$)/g, '$$1');

/** A comment of the release's authors must not take a finding away that the operators refuse: squawk heeds such comments. */
export const withoutIgnores = (statement: string): string =>
  statement.replaceAll(/squawk-(ignore|disable|enable)/gi, 'squawk $1');

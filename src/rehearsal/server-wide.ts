/** What a migration changes of the server as a whole: no backup of a database holds it, and no comparison of two shows it. */
import type { StatementEvent } from '../alembic/statements.ts';

const SERVER_WIDE = [
  /\b(CREATE|ALTER|DROP)\s+(ROLE|GROUP|USER(?!\s+MAPPING)|TABLESPACE|DATABASE)\b/i,
  /\bALTER\s+SYSTEM\b/i,
  /\b(COMMENT|SECURITY\s+LABEL)\b.*\bON\s+(ROLE|DATABASE|TABLESPACE)\b/is,
  /\b(GRANT|REVOKE)\b.*\bON\s+(DATABASE|TABLESPACE|PARAMETER)\b/is,
  // Membership: nothing stands between what is given and whom it is given to.
  /^\s*(GRANT|REVOKE)\s(?:(?!\bON\b).)*\b(TO|FROM)\b/is,
];

const LISTED = 5;
const SHOWN = 150;

/** Feed it with what upgrade and downgrade tell. */
export class ServerWideChanges {
  readonly #statements = new Set<string>();

  onStatement(event: StatementEvent): void {
    if (event.event !== 'statement' || event.sqlstate !== undefined || event.class === 'session') return;
    if (SERVER_WIDE.some((form) => form.test(event.statement))) this.#statements.add(event.statement.slice(0, SHOWN));
  }

  /** In words for the plan. */
  get unknown(): readonly string[] {
    const statements = [...this.#statements];
    if (statements.length === 0) return [];
    const more = statements.length > LISTED ? ` and ${statements.length - LISTED} more` : '';
    return [
      `what becomes of roles, databases and tablespaces: they are of the server, in no backup, and were not compared (${statements.slice(0, LISTED).join('; ')}${more})`,
    ];
  }
}

import { Readable } from 'node:stream';
import type { Client } from 'pg';
import type { DatabaseIdentity, RestoreEvidence } from '../contract/evidence.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import { ProcessFailed } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { requireSuccess, runProcess } from '../process/run.ts';
import { findSwapBlockers } from './blockers.ts';
import { applicationName, type ConnectionOptions, runTag, withConnection } from './connection.ts';
import { type ConnectionTarget, inDatabase, libpqEnvironment, parseConnectionUrl } from './connection-url.ts';
import { carryProperties, createDatabaseLike } from './database-properties.ts';
import { boundedIdentifier, sqlName } from './identifier.ts';
import { readIdentity } from './identity.ts';
import { listInvalidIndexes } from './leftover-indexes.ts';
import { captureObjectMap, type ObjectMap } from './object-map.ts';
import { compareRestored, describeChange } from './object-map-change.ts';
import { compareContents, type DatabaseContents, readContents } from './contents.ts';
import { compareRowCounts, readRowCounts, type RowCounts } from './row-counts.ts';
import { advanceSequences } from './sequences.ts';
import { endSessions } from './sessions.ts';

export interface RestoreRequest {
  /** libpq URL of production's administrator, resolved; leads to the production database. */
  readonly url: string;
  readonly maintenanceDatabase: string;
  readonly runId: string;
  readonly step: string;
  /** What the backup recorded of the database in its own snapshot. */
  readonly ledger: {
    readonly database: Pick<DatabaseIdentity, 'systemIdentifier' | 'database'>;
    readonly contents: DatabaseContents;
    readonly objectMap: ObjectMap;
  };
  /** The decrypted custom-format dump; throws, rather than ends, when it is not whole. */
  readonly openBackup: () => AsyncIterable<Uint8Array>;
  readonly dumpBytes: number;
  readonly pgRestore: { readonly file: string; readonly major: number };
  readonly redactor: Redactor;
  readonly signal: AbortSignal;
  readonly progress: (progress: RestoreProgress) => void;
}

export interface RestoreProgress {
  readonly phase: 'prepare' | 'restore' | 'compare' | 'analyze' | 'count-production';
  readonly bytes: number;
  readonly of: number;
  readonly table?: string;
}

/** Name of the database a backup is restored into: tells the run, and a later attempt finds it again. */
export const freshDatabaseName = (database: string, runId: string): string =>
  boundedIdentifier(database, `_restore_${runTag(runId)}`);

/**
 * Restores a backup into a fresh database beside production and compares it with the backup's ledger. Production is only
 * read. What an earlier attempt of this run left under the same name is dropped first.
 *
 * Compared: rows of every table (equal), sequences (brought ahead of the ledger and of their columns), the object map
 * (equal in normal form, see `normalizedDefinition`; that includes owners, grants and unvalidated constraints), no invalid
 * index. Then ANALYZE, since a dump carries no statistics, and the properties of the database itself.
 *
 * @throws StepError `StepRefused` with every reason; `CheckFailed` when the copy is not what was backed up
 */
export async function restoreFresh(request: RestoreRequest): Promise<RestoreEvidence> {
  const started = performance.now();
  const administrator = parseConnectionUrl(request.url);
  const production = administrator.database;
  const fresh = freshDatabaseName(production, request.runId);
  const progress = (phase: RestoreProgress['phase'], details: Partial<RestoreProgress> = {}): void =>
    request.progress({ phase, bytes: 0, of: request.dumpBytes, ...details });

  progress('prepare');
  await withConnection(administrator, sessionOf(request), (client) => refuseForeignBackup(client, request));
  await withConnection(inDatabase(administrator, request.maintenanceDatabase), sessionOf(request), async (client) => {
    await refuseEarly(client, production, request.pgRestore.major);
    await dropLeftover(client, fresh, request.signal);
    await createDatabaseLike(client, production, fresh);
  });

  await runPgRestore(request, inDatabase(administrator, fresh), (bytes) => progress('restore', { bytes }));

  const compared = await withConnection(inDatabase(administrator, fresh), sessionOf(request), async (client) => {
    const sequences = await advanceSequences(client, request.ledger.contents.sequences);
    const counts = await readContents([client], {
      sampleAbove: Infinity,
      like: request.ledger.contents,
      progress: (table) => progress('compare', { bytes: request.dumpBytes, table }),
    });
    await requireEqual(client, fresh, counts, request);
    progress('analyze', { bytes: request.dumpBytes });
    await analyze(client, fresh);
    return { counts, sequences: sequences.sequences };
  });

  await withConnection(inDatabase(administrator, request.maintenanceDatabase), sessionOf(request), async (client) => {
    const findings = await carryProperties(client, production, fresh);
    if (findings.length > 0) throw refusal(findings);
  });

  const current = await withConnection(administrator, sessionOf(request), (client) =>
    readRowCounts(client, (table) => progress('count-production', { bytes: request.dumpBytes, table })),
  );
  return {
    freshDatabase: fresh,
    tables: compared.counts.tables.length,
    rows: compared.counts.tables.reduce((sum, { rows }) => sum + rows, 0),
    sequences: compared.sequences,
    milliseconds: Math.round(performance.now() - started),
    left: rowsLeftBehind(current, compared.counts),
  };
}

/** Tables in which production and the restored copy differ. A table that only one side has counts 0 on the other. */
export const rowsLeftBehind = (production: RowCounts, restored: RowCounts): RestoreEvidence['left'] =>
  compareRowCounts(production, restored).map(({ table, before, after }) => ({
    table,
    production: Math.max(0, before),
    restored: Math.max(0, after),
  }));

/** Counting and analyzing take as long as they take; the step's own time limit bounds them. */
const sessionOf = ({ runId, step, signal }: RestoreRequest): ConnectionOptions => ({
  runId,
  step,
  signal,
  statementTimeout: 0,
  idleTimeout: 0,
});

async function refuseForeignBackup(client: Client, { ledger }: RestoreRequest): Promise<void> {
  const { systemIdentifier, database } = await readIdentity(client);
  if (systemIdentifier !== ledger.database.systemIdentifier || database !== ledger.database.database) {
    throw refusal([
      `the backup was taken of database "${ledger.database.database}" of system ${ledger.database.systemIdentifier}, production is "${database}" of system ${systemIdentifier}`,
    ]);
  }
}

/** Everything that would stop the restore or the swap later, before any work is done. */
async function refuseEarly(client: Client, production: string, major: number): Promise<void> {
  const { rows } = await client.query<{
    superuser: boolean;
    createdb: boolean;
    owner: string;
    member: boolean;
    major: number;
  }>(
    `SELECT r.rolsuper AS "superuser", r.rolcreatedb AS "createdb", pg_get_userbyid(d.datdba) AS "owner",
            pg_has_role(d.datdba, 'MEMBER') AS "member", current_setting('server_version_num')::int / 10000 AS "major"
     FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = $1`,
    [production],
  );
  const facts = rows[0];
  if (facts === undefined) throw refusal([`database "${production}" does not exist`]);
  const findings = await findSwapBlockers(client, production);
  if (!facts.superuser && !facts.createdb) findings.push('the administrator lacks CREATEDB');
  if (!facts.member)
    findings.push(`the administrator is not a member of role "${facts.owner}", which owns the database`);
  if (facts.major !== major) {
    findings.push(`pg_restore is of version ${major}, the server of version ${facts.major}: use the server's own`);
  }
  if (findings.length > 0) throw refusal(findings);
}

async function dropLeftover(client: Client, fresh: string, signal: AbortSignal): Promise<void> {
  const { rows } = await client.query('SELECT FROM pg_database WHERE datname = $1', [fresh]);
  if (rows.length === 0) return;
  await endSessions(client, { of: { database: fresh }, signal });
  await client.query(`DROP DATABASE ${sqlName(fresh)}`);
}

async function runPgRestore(
  request: RestoreRequest,
  target: ConnectionTarget,
  progress: (bytes: number) => void,
): Promise<void> {
  let bytes = 0;
  const timer = setInterval(() => progress(bytes), 500);
  const counted = Readable.from(
    countChunks(request.openBackup(), (length) => {
      bytes += length;
    }),
    { objectMode: false },
  );
  try {
    const result = await runProcess({
      file: request.pgRestore.file,
      args: [
        '--exit-on-error',
        '--no-password',
        // Subscriptions are refused before; a restored one would try to subscribe a second time.
        '--no-subscriptions',
        `--dbname=dbname='${target.database.replaceAll(/['\\]/g, String.raw`\$&`)}'`,
      ],
      environment: {
        ...libpqEnvironment(target),
        PGAPPNAME: applicationName(request.runId, request.step),
        PGOPTIONS:
          '-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c client_connection_check_interval=2s',
      },
      // Drained to its end even when pg_restore has seen enough: only then has the stream proved to be whole.
      input: counted,
      signal: request.signal,
      redactor: request.redactor,
      label: 'pg_restore',
    });
    requireSuccess(result, 'pg_restore');
  } catch (error) {
    request.signal.throwIfAborted();
    if (!(error instanceof ProcessFailed)) throw error;
    throw new StepError(
      STEP_ERRORS.processFailed,
      `the backup could not be restored into database "${target.database}" (production is untouched): ${error.message}`,
      { program: 'pg_restore', tail: error.result.stderrTail.slice(-1_200) },
    );
  } finally {
    clearInterval(timer);
    counted.destroy();
  }
}

async function* countChunks(
  source: AsyncIterable<Uint8Array>,
  count: (length: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    count(chunk.byteLength);
    yield chunk;
  }
}

async function requireEqual(
  client: Client,
  fresh: string,
  counts: DatabaseContents,
  { ledger }: RestoreRequest,
): Promise<void> {
  const findings = [
    ...compareContents(ledger.contents, counts),
    ...describeChange(compareRestored(ledger.objectMap, await captureObjectMap(client))),
    ...(await listInvalidIndexes(client)).map(({ name }) => `index ${name} is invalid`),
  ];
  if (findings.length === 0) return;
  throw new StepError(
    STEP_ERRORS.checkFailed,
    `the restored database "${fresh}" is not what was backed up (production is untouched): ${findings.slice(0, 10).join('; ')}`,
    { findings: findings.slice(0, 100) },
  );
}

/** All user tables by name: ANALYZE of a whole database would warn about system tables of other owners. */
async function analyze(client: Client, fresh: string): Promise<void> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `SELECT n.nspname AS "schema", c.relname AS "name"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`,
  );
  if (rows.length === 0) return;
  const skipped: string[] = [];
  const listen = (notice: { readonly severity?: string | undefined; readonly message?: string | undefined }): void => {
    if (notice.severity === 'WARNING') skipped.push(notice.message ?? '');
  };
  client.on('notice', listen);
  try {
    await client.query(`ANALYZE ${rows.map(({ schema, name }) => sqlName(schema, name)).join(', ')}`);
  } finally {
    client.off('notice', listen as never);
  }
  if (skipped.length > 0) {
    throw refusal(skipped.map((text) => `the restored database "${fresh}" could not be analyzed: ${text}`));
  }
}

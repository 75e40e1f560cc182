import type { Client } from 'pg';
import type { RestoreEvidence } from '../../contract/evidence/restore.ts';
import { refusal, STEP_ERRORS, StepError } from '../../contract/errors.ts';
import { compareContents, type DatabaseContents, readContents } from '../contents/contents.ts';
import { sqlName } from '../identifier.ts';
import { listInvalidIndexes } from '../catalog/leftover-indexes.ts';
import { captureObjectMap, type ObjectMap } from '../catalog/object-map.ts';
import { compareForRestore } from '../catalog/object-map-restore.ts';
import { advanceSequences } from '../contents/sequences.ts';

/** What a restored database is compared with: part of a backup's ledger. */
export interface RestoreLedger {
  readonly contents: DatabaseContents;
  readonly objectMap: ObjectMap;
}

/** A copy that was cut off from the rest of the world while it was restored. */
export interface Isolation {
  /** `ArchiveItem.what` of items that are not restored. */
  readonly leaveOut: readonly string[];
  /** The copy's objects as they came out of the backup, before they were cut off: what is compared with the recorded ones. */
  readonly asRestored: (found: ObjectMap, recorded: ObjectMap) => ObjectMap;
}

/** In a restored database, which nobody else writes to. Without time-outs. */
export interface CompareSessions {
  /** Reads the catalogs, then analyzes, while the readers read rows. */
  readonly catalog: Client;
  readonly readers: readonly Client[];
}

export type ComparedEvidence = Pick<RestoreEvidence, 'tables' | 'rows' | 'sequences' | 'compared' | 'cosmetic'>;

/**
 * Compares a restored database with the ledger of its backup and brings its statistics up to date, which a dump does not
 * carry. Equal must be: rows of every table, by count and checksum (or by the sample the ledger took); large objects with their
 * rights; the object map, which says what is owned by whom, granted to whom and which constraints are validated.
 * No index may be invalid. Sequences are brought ahead of what was recorded and of their columns first. Materialized views
 * are compared by definition: their rows are those of the last refresh, here the restore's own.
 *
 * @throws StepError `CheckFailed` with all that differs; `StepRefused` where a table may not be analyzed
 */
export async function compareWithLedger(
  { catalog, readers }: CompareSessions,
  ledger: RestoreLedger,
  database: string,
  progress: (table: string, done: number, of: number) => void,
  isolation?: Isolation,
): Promise<ComparedEvidence> {
  const { sequences } = await advanceSequences(catalog, ledger.contents.sequences);
  const tables = (await tablesToAnalyze(catalog)).values();
  const [contents, definitions] = await Promise.all([
    // A table the ledger does not know is a finding whatever it holds: nothing of it is left out.
    readContents(readers, { sampleAbove: Number.POSITIVE_INFINITY, like: ledger.contents, progress }),
    compareDefinitions(catalog, ledger, isolation).then(async (found) => {
      await analyze(catalog, tables, database);
      return found;
    }),
  ]);
  await Promise.all(readers.map((reader) => analyze(reader, tables, database)));
  const findings = [...compareContents(ledger.contents, contents), ...definitions.different];
  if (findings.length > 0) {
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `the restored database "${database}" is not what was backed up: ${findings.slice(0, 10).join('; ')}`,
      { findings: findings.slice(0, 100) },
    );
  }
  const samples = contents.tables.filter(({ sample }) => sample.kind === 'one-in').length;
  return {
    tables: contents.tables.length,
    rows: contents.tables.reduce((sum, { rows }) => sum + rows, 0),
    sequences,
    compared: {
      checksums: contents.tables.length - samples,
      samples,
      largeObjects: contents.largeObjects.count,
    },
    cosmetic: definitions.cosmetic,
  };
}

async function compareDefinitions(
  client: Client,
  ledger: RestoreLedger,
  isolation: Isolation | undefined,
): Promise<{ readonly different: readonly string[]; readonly cosmetic: readonly string[] }> {
  const found = await captureObjectMap(client);
  const { different, cosmetic } = compareForRestore(
    ledger.objectMap,
    isolation?.asRestored(found, ledger.objectMap) ?? found,
  );
  // A partitioned table's index that was not complete when it was backed up is in the dump, and in no object map.
  const valid = new Set(ledger.objectMap.objects.flatMap(({ kind, name }) => (kind === 'index' ? [name] : [])));
  const invalid = (await listInvalidIndexes(client))
    .filter(({ name, partitioned }) => !partitioned || valid.has(name))
    .map(({ name }) => `index ${name} is invalid`);
  return { different: [...different, ...invalid], cosmetic: bounded(cosmetic) };
}

/** Entries an evidence can hold: a large database has thousands of rewritten expressions, and a history little room. */
const LISTED = 100;

const bounded = (lines: readonly string[]): readonly string[] =>
  lines.length <= LISTED ? lines : [...lines.slice(0, LISTED), `and ${lines.length - LISTED} more`];

/**
 * Names in SQL form, largest first. By name, for ANALYZE of a whole database would warn about system tables of other owners. A
 * partitioned table's analysis takes in its partitions; one that has foreign partitions is analyzed partition by partition, for
 * the whole would ask other servers.
 */
async function tablesToAnalyze(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ schema: string; name: string }>(
    `WITH RECURSIVE reaching_out (oid) AS (
       SELECT oid FROM pg_class WHERE relkind = 'f'
       UNION SELECT i.inhparent FROM pg_inherits i JOIN reaching_out o ON o.oid = i.inhrelid)
     SELECT n.nspname AS "schema", c.relname AS "name"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
       AND c.oid NOT IN (SELECT oid FROM reaching_out)
       AND NOT (c.relispartition AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid
                                             AND i.inhparent NOT IN (SELECT oid FROM reaching_out)))
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY c.relkind = 'p' DESC, pg_table_size(c.oid) DESC`,
  );
  return rows.map(({ schema, name }) => sqlName(schema, name));
}

/** Takes tables as long as there are any: several sessions share one iterator. */
async function analyze(client: Client, tables: IterableIterator<string>, database: string): Promise<void> {
  const skipped: string[] = [];
  const listen = (notice: { readonly severity?: string | undefined; readonly message?: string | undefined }): void => {
    if (notice.severity === 'WARNING') skipped.push(notice.message ?? '');
  };
  client.on('notice', listen);
  try {
    for (const table of tables) await client.query(`ANALYZE ${table}`);
  } finally {
    client.off('notice', listen as never);
  }
  if (skipped.length > 0) {
    throw refusal(skipped.map((text) => `the restored database "${database}" could not be analyzed: ${text}`));
  }
}

import type { TableCost } from '../contract/evidence/restore.ts';
import type { StoredDocument } from '../contract/evidence/step.ts';
import type { DatabaseDifference } from '../postgres/contents/database-difference.ts';
import { COMPRESSION } from './compression.ts';
import { ENCRYPTION } from './encryption.ts';
import type { SalvageTable } from './salvage-sql.ts';

/** What the manifest says of the run. */
export interface SalvageFacts {
  readonly service: string;
  readonly releaseTag: string;
  readonly changeTicket: string;
  readonly backup: { readonly uri: string; readonly capturedAt: string };
  /** See `WayBackCost.by`. */
  readonly by: 'migration' | 'anybody';
}

/** What is in an archive, readable without the age identity: names and counts, no row of it. */
export interface SalvageManifest extends SalvageFacts {
  readonly format: 'migration-runbook/salvage/1';
  readonly runId: string;
  readonly production: { readonly systemIdentifier: string; readonly database: string };
  /** The restored database production was compared with. */
  readonly copy: string;
  /** ISO 8601: of one snapshot for all tables. What was written later is in the database that the swap keeps aside, only there. */
  readonly snapshotAt: string;
  readonly lsn: string;
  readonly archive: StoredDocument & { readonly compression: string; readonly encryption: string };
  /** Schema that loading the archive creates. */
  readonly schema: string;
  readonly tables: readonly ManifestTable[];
  /** Columns that the migration added, of all tables: rows are compared without them. */
  readonly added: DatabaseDifference['added'];
  /** What the backup has and production had no more: what was written there after the backup is not in this archive. */
  readonly gone: DatabaseDifference['gone'];
  /** What could not be compared. */
  readonly unknown: readonly string[];
  readonly load: readonly string[];
  readonly notes: readonly string[];
}

interface ManifestTable extends TableCost {
  /** `production`: made after the backup. `copy`: gone since; all its rows are in the restored database. */
  readonly presence: 'both' | 'production' | 'copy';
  /** Null where rows have nothing to be told apart by: a changed row counts as one deleted and one inserted. */
  readonly key?: readonly string[] | null;
  readonly compared?: readonly string[];
  /** Compared by their text, for their types differ. */
  readonly retyped?: readonly string[];
  readonly onlyInProduction?: readonly string[];
  readonly onlyInCopy?: readonly string[];
  readonly exported: readonly Omit<SalvageTable, 'source'>[];
}

export interface ManifestSources {
  readonly facts: SalvageFacts;
  readonly runId: string;
  readonly copy: string;
  readonly schema: string;
  readonly snapshot: {
    readonly database: { readonly systemIdentifier: string; readonly database: string };
    readonly snapshotAt: string;
    readonly lsn: string;
  };
  readonly difference: DatabaseDifference;
  readonly tables: readonly TableCost[];
  readonly exported: readonly SalvageTable[];
  readonly archive: StoredDocument;
}

export function salvageManifest(sources: ManifestSources): SalvageManifest {
  const { facts, snapshot, difference, exported, archive } = sources;
  const { systemIdentifier, database } = snapshot.database;
  const file = archive.uri.slice(archive.uri.lastIndexOf('/') + 1);
  const describe = (cost: TableCost): ManifestTable => ({
    ...cost,
    ...howCompared(cost, difference),
    exported: exported
      .filter(({ source, kind }) => source === cost.table && cost[kind] > 0)
      .map(({ source: _source, ...table }) => table),
  });
  return {
    format: 'migration-runbook/salvage/1',
    ...facts,
    runId: sources.runId,
    production: { systemIdentifier, database },
    copy: sources.copy,
    snapshotAt: snapshot.snapshotAt,
    lsn: snapshot.lsn,
    archive: { ...archive, compression: COMPRESSION, encryption: ENCRYPTION },
    schema: sources.schema,
    tables: sources.tables.map(describe),
    added: difference.added,
    gone: difference.gone,
    unknown: difference.unknown,
    load: [
      `fetch ${archive.uri} as ${file} and compare its SHA-256`,
      `age --decrypt --identity KEY_FILE ${file} | zstd --decompress | psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname=DATABASE`,
    ],
    notes: [
      'A table NAME__inserted or NAME__updated holds rows as production had them, with all of its columns; NAME__deleted holds the keys of rows that production no longer had, or the whole rows where the table has no key.',
      'Columns whose type is the service\'s own or an extension\'s are text; "was" names the type.',
      'Rows are compared by the columns listed as compared; those whose type was changed (retyped) by their text.',
      `All of it is one snapshot of production (snapshotAt). What was written later is only in the database that the swap keeps aside.`,
      'What was written after the backup to the tables and columns that are gone is in no database and not in here, unless the migration kept it elsewhere.',
      'A table that was renamed counts as one that is gone and one that is new, a renamed column likewise.',
      "large_objects__inserted and large_objects__updated hold pages: SELECT lo_from_bytea(0, string_agg(data, '' ORDER BY page)) ... GROUP BY oid.",
    ],
  };
}

function howCompared(
  { table, deleted }: TableCost,
  { changed, alone }: DatabaseDifference,
): Pick<ManifestTable, 'presence' | 'key' | 'compared' | 'retyped' | 'onlyInProduction' | 'onlyInCopy'> {
  const pair = changed.find((entry) => entry.pair.table === table)?.pair;
  if (pair !== undefined) {
    const { key, compared, retyped, onlyInProduction, onlyInCopy } = pair;
    return { presence: 'both', key, compared, retyped, onlyInProduction, onlyInCopy };
  }
  const single = alone.find((entry) => entry.pair.table === table && (entry.pair.presence === 'copy') === deleted > 0);
  return { presence: single?.pair.presence ?? 'both' };
}

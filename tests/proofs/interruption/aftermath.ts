/** What an interruption may have left: looked for in the bucket's own files, the servers and the worker's folders, not in the run's report. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { ListMultipartUploadsCommand, ListPartsCommand, S3Client } from '@aws-sdk/client-s3';
import type { PostgresServer, S3Server, StackConnection } from '../../../scripts/stack/connection.ts';
import type { Example } from '../../../scripts/stack/example.ts';
import { withClient } from '../../../scripts/stack/postgres-cluster.ts';
import { attemptName } from '../../../src/archive/backup-names.ts';
import { parseDatabaseMark } from '../../../src/postgres/restore/database-mark.ts';

/** Names of the files in the bucket whose path contains this run id, below the run's folder. */
export async function objectsOf({ directory, s3 }: StackConnection, runId: string): Promise<string[]> {
  const folder = path.join(directory, 's3', 'buckets', s3?.bucket ?? '');
  const names = await readdir(folder, { recursive: true });
  const files: string[] = [];
  for (const name of names.filter((one) => one.includes(runId))) {
    if ((await stat(path.join(folder, name))).isFile()) files.push(name.slice(name.indexOf(runId) + runId.length + 1));
  }
  return files.sort();
}

/** Name of an object of a backup. */
export type NameOf = (backup: string) => string;

export const dumpOf: NameOf = (backup) => `${backup}.dump.zst.age`;
const ledgerOf: NameOf = (backup) => `${backup}.ledger.json.zst.age`;
export const manifestOf: NameOf = (backup) => `${backup}.backup.json`;

/** Names of a step's backups, one for each attempt that may have been: more than any proof makes. */
const attemptsOf = (step: string): readonly string[] =>
  Array.from({ length: 9 }, (_, index) => attemptName(step, index + 1));

/** Whether a key, or a name, is that of such an object of the step, whichever attempt stores it. */
export const isOfStep = (key: string, nameOf: NameOf, step: string): boolean =>
  attemptsOf(step).some((attempt) => key === nameOf(attempt) || key.endsWith(`/${nameOf(attempt)}`));

/** Names of the backups of these steps: an attempt after the first has a name of its own. */
export async function backupNames(stack: StackConnection, runId: string, steps: readonly string[]): Promise<string[]> {
  const objects = await objectsOf(stack, runId);
  return steps.map((step) => attemptsOf(step).findLast((name) => objects.includes(manifestOf(name))) ?? step);
}

/** One dump, its ledger and its manifest for each of the steps, and no other dump. */
export async function checkObjects(stack: StackConnection, runId: string, steps: readonly string[]): Promise<string[]> {
  const objects = await objectsOf(stack, runId);
  const backups = objects.filter((name) => /\.(dump|ledger|backup)\b/.test(name));
  const expected = steps.flatMap((step) => [dumpOf(step), ledgerOf(step), manifestOf(step)]);
  return [
    ...expected.filter((name) => !backups.includes(name)).map((name) => `${name} is not in the bucket`),
    ...backups.filter((name) => !expected.includes(name)).map((name) => `left in the bucket: ${name}`),
  ];
}

export interface UnfinishedUpload {
  readonly key: string;
  readonly parts: number;
}

/** Uploads that were neither completed nor aborted. */
export async function unfinishedUploads({ s3 }: StackConnection): Promise<UnfinishedUpload[]> {
  if (!s3) throw new Error('the stack runs without S3');
  const client = clientOf(s3);
  const Bucket = s3.bucket;
  try {
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket }));
    const found: UnfinishedUpload[] = [];
    for (const { Key, UploadId } of Uploads) {
      const { Parts = [] } = await client.send(new ListPartsCommand({ Bucket, Key, UploadId }));
      found.push({ key: Key ?? '', parts: Parts.length });
    }
    return found;
  } catch (error) {
    // This server's word for "there are none".
    if (error instanceof Error && error.name === 'NoSuchUpload') return [];
    throw error;
  } finally {
    client.destroy();
  }
}

const clientOf = ({ endpoint, region, accessKeyId, secretAccessKey }: S3Server): S3Client =>
  new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: { accessKeyId, secretAccessKey },
  });

export async function checkUploads(stack: StackConnection, runId: string): Promise<string[]> {
  const uploads = (await unfinishedUploads(stack)).filter(({ key }) => key.includes(runId));
  return uploads.map(({ key }) => `an unfinished upload is left: ${key}`);
}

interface Database {
  readonly name: string;
  readonly oid: number;
  readonly open: boolean;
  readonly limit: number;
  readonly comment: string | null;
}

/** Databases of one server that are not the server's own. */
const databasesOf = (server: PostgresServer): Promise<Database[]> =>
  withClient(server.superuserUrl, async (client) => {
    const { rows } = await client.query<Database>(
      `SELECT datname AS "name", oid::int8::float8 AS "oid", datallowconn AS "open", datconnlimit AS "limit",
              shobj_description(oid, 'pg_database') AS "comment"
       FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname`,
    );
    return rows;
  });

/**
 * Production, open, and nothing else, but for the database this many restores have replaced: closed, with a mark that says
 * so. Nothing on the scratch server.
 */
export async function checkDatabases({ stack, databases }: Example, keptAside: number): Promise<string[]> {
  const { primary, scratch } = stack.postgres;
  if (!primary || !scratch) throw new Error('the stack runs without primary or scratch server');
  const findings: string[] = [];
  let aside = 0;
  for (const { name, oid, open, limit, comment } of await databasesOf(primary)) {
    const mark = parseDatabaseMark(comment, oid);
    if (name === databases.production) {
      if (!open || limit !== -1) findings.push(`${name} takes no connections`);
      if (mark) findings.push(`${name} is still marked as ${mark.kind}`);
    } else if (mark?.kind === 'kept-aside' && !open) aside += 1;
    else findings.push(`left on production's server: database ${name} (${comment ?? 'no comment'})`);
  }
  if (aside !== keptAside) findings.push(`${aside} databases are kept aside, not ${keptAside}`);
  for (const { name } of await databasesOf(scratch)) findings.push(`left on the scratch server: database ${name}`);
  return findings;
}

/** A row written and taken back as the application does it, through production's own name. */
export async function checkApplication({ urls }: Example): Promise<string[]> {
  try {
    await withClient(urls.production.application, async (client) => {
      await client.query('BEGIN');
      await client.query(`INSERT INTO tags (name) VALUES ('written after an interruption')`);
      await client.query('ROLLBACK');
    });
    return [];
  } catch (error) {
    return [`the application cannot write: ${error instanceof Error ? error.message : String(error)}`];
  }
}

/** Sessions and locks of the project on any of the servers. A session whose client is gone may take a moment to see so. */
export async function checkSessions({ postgres }: StackConnection): Promise<string[]> {
  const findings: string[] = [];
  for (const [part, server] of Object.entries(postgres)) {
    const left = await withClient(server.superuserUrl, async (client) => {
      const { rows } = await client.query<{ finding: string }>(
        `SELECT format('session %s of %s, %s, %s', pid, usename, application_name, left(query, 60)) AS "finding"
         FROM pg_stat_activity WHERE application_name LIKE 'migration-runbook/%'
         UNION ALL
         SELECT format('prepared transaction %s', gid) FROM pg_prepared_xacts
         UNION ALL
         SELECT format('slot %s', slot_name) FROM pg_replication_slots WHERE slot_name <> 'replica1'`,
      );
      return rows;
    });
    findings.push(...left.map(({ finding }) => `left on ${part}: ${finding}`));
  }
  return findings;
}

/** Nothing is left in the worker's temporary folder. */
export async function checkTemporaryFiles(folder: string): Promise<string[]> {
  const left = await readdir(folder, { recursive: true });
  return left.map((name) => `left in the worker's temporary folder: ${name}`);
}

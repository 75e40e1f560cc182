/**
 * One backup, taken and verified in a process of its own, so that its memory and its writes can be told from others'. Takes a
 * `BackupTask` as JSON on standard input, prints a `BackupCost` as JSON.
 */
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import type { S3Server } from '../../../scripts/stack/connection.ts';
import { captureDump } from '../../../src/archive/dump.ts';
import { openObjectStore } from '../../../src/archive/object-store.ts';
import { findPrograms } from '../../../src/archive/programs.ts';
import { verifyStoredBackup } from '../../../src/archive/verify.ts';
import { Redactor } from '../../../src/process/redactor.ts';

export interface BackupTask {
  readonly url: string;
  readonly binDirectory: string;
  readonly s3: S3Server;
  readonly runId: string;
  readonly recipient: string;
  readonly identity: string;
}

export interface BackupCost {
  /** Milliseconds. */
  readonly capture: number;
  readonly verify: number;
  readonly dumpBytes: number;
  readonly bytes: number;
  /** Largest resident size, bytes. */
  readonly memory: number;
  /** Bytes this process sent to a disk: `write_bytes` of proc(5). */
  readonly written: number;
  /** Seconds of processor time of this process. */
  readonly processor: number;
}

const task = JSON.parse(await text(process.stdin)) as BackupTask;
const common = { signal: new AbortController().signal, redactor: new Redactor([]), progress: () => undefined };
const programs = await findPrograms({ home: '/', postgresPrograms: task.binDirectory }, common);
const store = openObjectStore({ ...task.s3, forcePathStyle: true }, task.s3);

const began = performance.now();
const backup = await captureDump({
  ...common,
  url: task.url,
  versionTable: { schema: 'public', table: 'alembic_version' },
  pgDump: programs.pg_dump,
  store,
  folder: `bench/service/${task.runId}`,
  run: { runId: task.runId, service: 'service', releaseTag: 'v1.0.0', changeTicket: 'CHG-1' },
  step: 'backup.capture',
  recipients: [task.recipient],
});
const captured = performance.now();
await verifyStoredBackup({ ...common, store, backup, identity: task.identity, pgRestore: programs.pg_restore });
const verified = performance.now();
store.close();

const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
const written = /^write_bytes: (\d+)$/m.exec(await readFile('/proc/self/io', 'utf8'))?.[1];
if (written === undefined) throw new Error('this system does not tell what a process wrote');
const cost: BackupCost = {
  capture: captured - began,
  verify: verified - captured,
  dumpBytes: backup.dumpBytes,
  bytes: backup.bytes,
  memory: maxRSS * 1024,
  written: Number(written),
  processor: (userCPUTime + systemCPUTime) / 1e6,
};
console.log(JSON.stringify(cost));

import { mkdtemp, readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { refusal } from '../../contract/errors.ts';
import { runTag } from '../connection.ts';

const PREFIX = 'migration-runbook-restore-';
/** Milliseconds. Of runs that will never come back to this host. */
const ABANDONED = 24 * 3_600_000;

export interface ScratchFolderOptions {
  /** Where it is made. */
  readonly parent: string;
  /** First run id of the workflow: what an attempt of the run that was killed has left is removed. */
  readonly runId: string;
  /** Bytes that will be written. */
  readonly bytes: number;
}

/**
 * A folder nobody else can look into (0700) that is gone afterwards, whatever happens. Only a killed process leaves it
 * behind: then the run's next attempt on this host removes it, or any restore a day later.
 *
 * @throws StepError `StepRefused` when there is too little room
 */
export async function withScratchFolder<T>(
  options: ScratchFolderOptions,
  work: (folder: string) => Promise<T>,
): Promise<T> {
  await removeLeftovers(options);
  await requireRoom(options);
  const folder = await mkdtemp(join(options.parent, `${PREFIX}${runTag(options.runId)}-`));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What killed attempts left: those of the same run, and old ones of any. Never fails: others' folders cannot be removed. */
export async function removeLeftovers({
  parent,
  runId,
}: Pick<ScratchFolderOptions, 'parent' | 'runId'>): Promise<void> {
  const names = await readdir(parent).catch(() => []);
  for (const name of names.filter((entry) => entry.startsWith(PREFIX))) {
    const path = join(parent, name);
    const age = await stat(path).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0,
    );
    if (!name.startsWith(`${PREFIX}${runTag(runId)}-`) && age < ABANDONED) continue;
    await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}

async function requireRoom({ parent, bytes }: ScratchFolderOptions): Promise<void> {
  const { bavail, bsize } = await statfs(parent).catch(() => {
    throw refusal([`the folder for scratch files, ${parent}, cannot be used`]);
  });
  const free = bavail * bsize;
  if (free < bytes) {
    throw refusal([`the folder for scratch files, ${parent}, has ${free} bytes free, ${bytes} are needed`]);
  }
}

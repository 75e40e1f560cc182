import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

const firstPoll = 4;
const longestPoll = 50;

/** Sends a signal to every process of a group. */
export function signalGroup(group: number, signal: NodeJS.Signals): 'sent' | 'gone' {
  try {
    process.kill(-group, signal);
    return 'sent';
  } catch (error) {
    if (isErrorCode(error, 'ESRCH')) return 'gone';
    // Only processes of other users, or on macOS only zombies, are left. The caller's poll decides.
    if (isErrorCode(error, 'EPERM')) return 'sent';
    throw error;
  }
}

/**
 * Waits until no living process of the group is left, for `limit` milliseconds at most and no longer than until `enough`
 * aborts. Tells whether it is gone.
 */
export async function waitUntilGroupGone(
  group: number,
  limit = Number.POSITIVE_INFINITY,
  enough?: AbortSignal,
): Promise<boolean> {
  const deadline = performance.now() + limit;
  for (let pause = firstPoll; ; pause = Math.min(longestPoll, pause * 2)) {
    if (await isGroupGone(group)) return true;
    const left = deadline - performance.now();
    if (left <= 0 || enough?.aborted === true) return false;
    await delay(Math.min(pause, left));
  }
}

/** Whether no living process of the group is left. Zombies do not count: where nobody reaps orphans they stay for ever. */
export async function isGroupGone(group: number): Promise<boolean> {
  try {
    process.kill(-group, 0);
  } catch (error) {
    if (isErrorCode(error, 'ESRCH')) return true;
    // macOS answers EPERM for a group of zombies only.
    if (isErrorCode(error, 'EPERM') && process.platform === 'darwin') return true;
    if (!isErrorCode(error, 'EPERM')) throw error;
  }
  return process.platform === 'linux' && !(await hasLivingMember(group));
}

async function hasLivingMember(group: number): Promise<boolean> {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const line = await readFile(`/proc/${entry}/stat`, 'latin1').catch(() => undefined);
    // proc(5): "pid (comm) state ppid pgrp ..."; comm may itself contain parentheses and spaces.
    const [state, , processGroup] = line?.slice(line.lastIndexOf(')') + 2).split(' ') ?? [];
    if (Number(processGroup) === group && state !== 'Z' && state !== 'X') return true;
  }
  return false;
}

function isErrorCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}

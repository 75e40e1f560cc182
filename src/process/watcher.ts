import { once } from 'node:events';
import { execa } from 'execa';
import { ProcessNotStarted } from './errors.ts';

/**
 * Kills a process group when this worker is gone, however it ended.
 *
 * It lives in a session of its own and reads a pipe whose other end only the worker holds: the end of file without the
 * word `done` before it means that the worker died. No signal meant for the group or the terminal reaches it.
 */
const watcherScript = `
trap '' HUP INT TERM
IFS= read -r group || exit 0
echo armed
IFS= read -r word
[ "$word" = done ] && exit 0
kill -KILL "-$group" 2>/dev/null || kill -s KILL -- "-$group"
`;

export interface Watcher {
  /** Resolves when the watcher has taken note of the group and would act. */
  arm(group: number): Promise<void>;
  /** The group is gone: the watcher ends and does nothing. */
  dismiss(): void;
}

export async function startWatcher(): Promise<Watcher> {
  const watcher = execa('/bin/sh', ['-c', watcherScript, 'runbook-watcher'], {
    detached: true,
    cleanup: false,
    cwd: '/',
    env: { PATH: '/usr/bin:/bin' },
    extendEnv: false,
    stdio: ['pipe', 'pipe', 'ignore'],
    buffer: false,
    reject: false,
  });
  watcher.stdin.on('error', () => undefined);
  if (watcher.pid === undefined) {
    await watcher;
    throw new ProcessNotStarted('not-spawned', '/bin/sh could not be started');
  }
  return {
    async arm(group) {
      const ended = new AbortController();
      watcher.nodeChildProcess.once('exit', () => ended.abort());
      watcher.stdin.write(`${group}\n`);
      try {
        await once(watcher.stdout, 'data', { signal: ended.signal });
      } catch {
        throw new ProcessNotStarted('not-spawned', 'the watcher of the process group ended before it was armed');
      }
    },
    dismiss() {
      watcher.stdin.end('done\n');
    },
  };
}

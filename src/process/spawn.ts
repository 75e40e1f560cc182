import { once } from 'node:events';
import type { Duplex, Readable, Writable } from 'node:stream';
import { execa } from 'execa';
import { childEnvironment, findProgram, requireDirectory } from './environment.ts';
import { cancellation, ProcessNotStarted } from './errors.ts';
import { firstChannel, type ProcessOptions } from './options.ts';
import { parentDeathPrefix } from './parent-death.ts';
import { type Exit, ProcessGroup } from './running-process.ts';
import { startWatcher } from './watcher.ts';

const gateDescriptor = 3;
/** The shell that opens the gate addresses file descriptors of one digit only. */
const mostChannels = 5;

/**
 * The child waits here, its group already known, until the watcher is armed: there is no moment in which the worker
 * could die and leave the program running.
 */
const gateScript = `IFS= read -r word <&${gateDescriptor} && [ "$word" = go ] || exit 125
exec ${gateDescriptor}<&-
exec "$@"`;

/** Starts a program as the leader of its own process group. Its standard output is left to the caller to read. */
export async function spawnGroup(options: ProcessOptions): Promise<{ running: ProcessGroup; stdout: Readable }> {
  throwIfAborted(options.signal);
  const directory = options.directory ?? '/';
  const environment = childEnvironment(options.environment ?? {});
  await requireDirectory(directory);
  const program = await findProgram(options.file, directory, environment.PATH);
  const prefix = await parentDeathPrefix();
  const watcher = await startWatcher();
  let armed = false;
  try {
    throwIfAborted(options.signal);
    const child = execa('/bin/sh', ['-c', gateScript, 'runbook-gate', ...prefix, program, ...(options.args ?? [])], {
      detached: true,
      cleanup: false,
      cwd: directory,
      env: environment,
      extendEnv: false,
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe', ...channelPipes(options)],
      buffer: false,
      reject: false,
    });
    if (child.pid === undefined) {
      await child;
      throw new ProcessNotStarted('not-spawned', `${options.file} could not be started through /bin/sh`);
    }
    const exit = once(child.nodeChildProcess, 'exit') as Promise<unknown> as Promise<Exit>;
    const streams = child.stdio as unknown as readonly (Duplex | null)[];
    for (const stream of streams) stream?.on('error', () => undefined);
    const [stdin, stdout, stderr, gate, ...channels] = streams as readonly [Writable, Readable, Readable, ...Duplex[]];
    const running = new ProcessGroup(options, child.pid, channels, exit, () => watcher.dismiss());
    armed = true;
    running.readLines('stderr', stderr);
    try {
      await watcher.arm(child.pid);
      gate?.end('go\n');
    } catch (error) {
      running.fail(error);
    }
    if (options.input !== undefined) running.feed(stdin, options.input);
    return { running, stdout };
  } finally {
    if (!armed) watcher.dismiss();
  }
}

function channelPipes({ channels = 0 }: ProcessOptions): 'pipe'[] {
  if (channels > mostChannels) throw new RangeError(`at most ${mostChannels} channels`);
  return Array.from({ length: channels }, () => 'pipe');
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw cancellation(signal);
}

/** The file descriptor at which a child finds a channel, as the value of an environment variable. */
export function channelDescriptor(index: number): string {
  return String(firstChannel + index);
}

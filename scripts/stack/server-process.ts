import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { identify, isAlive, signalProcess } from './process-identity.ts';
import type { ProcessIdentity } from './process-identity.ts';
import { runs, unprivileged } from './privileges.ts';
import type { Privileges } from './privileges.ts';

/**
 * Whether a server ends with the process that starts it, however that ends (`with-parent`), or stays until somebody stops it
 * (`detached`).
 */
export type Lifetime = 'with-parent' | 'detached';

export interface ServerSpecification {
  /** Short name, for messages and the state file. */
  readonly name: string;
  readonly program: string;
  readonly arguments: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Folder the server works in, its HOME too. */
  readonly directory: string;
  readonly logFile: string;
  readonly lifetime: Lifetime;
  /** Signal that ends the server at once and surely, sent when its parent is gone. Default KILL. */
  readonly orphanSignal?: 'KILL' | 'QUIT' | 'TERM';
  /** Stay as we are where ids would have to be changed: for programs in folders that stay ours. Default: never root. */
  readonly privileges?: 'keep-files';
  /** Throws or returns false until the server really answers. */
  readonly ready: () => Promise<boolean>;
  /** Milliseconds until giving up. Default 60,000. */
  readonly readyWithin?: number;
}

/** A server that runs, in the form the state file keeps. */
export interface RunningServer extends ProcessIdentity {
  readonly name: string;
}

/** The server ended before it answered. `log` is the end of what it wrote. */
export class ServerEnded extends Error {
  override readonly name = 'ServerEnded';
  readonly log: string;
  constructor(server: string, log: string) {
    super(`${server} ended before it was ready; the end of its log:\n${log}`);
    this.log = log;
  }
}

/** Starts a server and waits until it answers.
 * @throws ServerEnded; Error when it does not answer in time (it is stopped then). */
export async function startServer(specification: ServerSpecification): Promise<RunningServer> {
  const child = await launch(specification);
  const pid = child.pid;
  const identity = pid === undefined ? undefined : identify(pid);
  const logTail = (): Promise<string> => tail(specification.logFile);
  if (identity === undefined) throw new ServerEnded(specification.name, await logTail());
  const deadline = Date.now() + (specification.readyWithin ?? 60_000);
  for (let pause = 20; ; pause = Math.min(pause * 1.5, 250)) {
    if (!isAlive(identity)) throw new ServerEnded(specification.name, await logTail());
    const ready = await specification.ready().catch(() => false);
    // Somebody else's server may answer on a port that ours failed to get.
    if (ready && isAlive(identity)) return { ...identity, name: specification.name };
    if (Date.now() > deadline) {
      signalProcess(identity, 'SIGKILL');
      throw new Error(`${specification.name} did not answer in time; the end of its log:\n${await logTail()}`);
    }
    await delay(pause);
  }
}

/** Runs `start` with new ports while it fails because somebody else took one in between. */
export async function withFreshPorts<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start();
    } catch (error) {
      const taken = error instanceof ServerEnded && /address already in use|could not bind|EADDRINUSE/i.test(error.log);
      if (!taken || attempt === 4) throw error;
    }
  }
}

export interface StopPolicy {
  /** Signals in the order tried, each with the milliseconds to wait for the end before the next. */
  readonly signals: readonly (readonly [NodeJS.Signals, number])[];
}

/** Ends exactly this process, and returns when it is gone.
 * @throws Error when it survives the last signal. */
export async function stopServer(server: RunningServer, policy: StopPolicy): Promise<void> {
  for (const [signal, wait] of policy.signals) {
    signalProcess(server, signal);
    const deadline = Date.now() + wait;
    while (isAlive(server)) {
      if (Date.now() > deadline) break;
      await delay(20);
    }
    if (!isAlive(server)) return;
  }
  throw new Error(`${server.name} (process ${server.pid}) does not stop`);
}

async function launch(specification: ServerSpecification): Promise<ChildProcess> {
  const available = unprivileged();
  const stay = available.kind === 'drop' && specification.privileges === 'keep-files';
  const privileges: Privileges = stay ? { kind: 'as-is' } : available;
  const signal = specification.orphanSignal ?? 'KILL';
  const command = [specification.program, ...specification.arguments];
  let stdin: 'ignore' | 'pipe' = 'ignore';
  if (specification.lifetime === 'with-parent') {
    // After the change of user, which would clear the wish to be signalled (prctl(2), PR_SET_PDEATHSIG).
    if (canFollowParent()) command.unshift('setpriv', '--pdeathsig', signal, '--');
    else {
      command.unshift('/bin/sh', join(import.meta.dirname, 'supervise.sh'), signal);
      stdin = 'pipe';
    }
  }
  if (privileges.kind === 'namespace') command.unshift(...privileges.prefix);
  const log = openSync(specification.logFile, 'a', 0o600);
  try {
    const child = spawn(command[0] ?? '', command.slice(1), {
      cwd: privileges.kind === 'drop' ? '/' : specification.directory,
      // Nothing of ours is inherited: no PG*, AWS_*, TEMPORAL_* setting of the user, and no secret.
      env: {
        PATH: process.env['PATH'] ?? '/usr/bin:/bin',
        HOME: specification.directory,
        LC_ALL: 'C.UTF-8',
        TZ: 'UTC',
        ...specification.environment,
      },
      // A process group of its own: Ctrl-C in a terminal is for the program that started us, which stops the servers in order.
      detached: true,
      stdio: [stdin, log, log],
      ...(privileges.kind === 'drop' ? { uid: privileges.uid, gid: privileges.gid } : {}),
    });
    child.once('error', () => {}); // seen as an end before readiness
    child.unref();
    if (child.stdin !== null && 'unref' in child.stdin && typeof child.stdin.unref === 'function') child.stdin.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

let followsParent: boolean | undefined;

function canFollowParent(): boolean {
  // STACK_SUPERVISION=shell takes the way of the platforms that lack it, for trying that out.
  followsParent ??=
    process.platform === 'linux' &&
    process.env['STACK_SUPERVISION'] !== 'shell' &&
    runs(['setpriv', '--pdeathsig', 'KILL', '--', 'true']);
  return followsParent;
}

async function tail(file: string): Promise<string> {
  const bytes = 2000;
  const { size } = await stat(file);
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(bytes), 0, bytes, Math.max(0, size - bytes));
    return buffer.subarray(0, bytesRead).toString('utf8').trim();
  } finally {
    await handle.close();
  }
}

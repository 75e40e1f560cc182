import { type Duplex, Readable, type Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { cancellation } from './errors.ts';
import { signalGroup, waitUntilGroupGone } from './group.ts';
import type { OutputStream, ProcessOptions, ProcessResult, RunningProcess } from './options.ts';
import { LineSplitter, Tail } from './output.ts';
import { rowValueFilter } from './row-values.ts';

const defaultLineLength = 8_192;
const defaultTail = 16_384;
const defaultGrace = 1_000;
const progressInterval = 1_000;
/** A daemon that has left the group may hold the output open for ever; what is still in the pipe arrives at once. */
const outputGrace = 1_000;

export type Exit = readonly [code: number | null, signal: NodeJS.Signals | null];

/** The life of one process group: what it writes, what it is fed, and its end. */
export class ProcessGroup implements RunningProcess {
  readonly pid: number;
  readonly channels: readonly Duplex[];
  readonly result: Promise<ProcessResult>;
  readonly #options: ProcessOptions;
  readonly #started = performance.now();
  readonly #tails: Readonly<Record<OutputStream, Tail>>;
  readonly #outputs: { readonly stream: Readable; readonly closed: Promise<void> }[] = [];
  #lines = 0;
  #lastLine: string | undefined;
  #termination: Promise<void> | undefined;
  /** Why the group was stopped before its time; what `result` then rejects with. */
  #failure: { readonly error: unknown } | undefined;
  #exited = false;

  constructor(
    options: ProcessOptions,
    pid: number,
    channels: readonly Duplex[],
    exit: Promise<Exit>,
    dismissWatcher: () => void,
  ) {
    this.#options = options;
    this.pid = pid;
    this.channels = channels;
    const tail = options.limits?.tail ?? defaultTail;
    this.#tails = { stdout: new Tail(tail), stderr: new Tail(tail) };
    this.result = this.#run(exit, dismissWatcher);
    // Whoever holds only the output stream learns of a failure there.
    this.result.catch(() => undefined);
  }

  async stop(): Promise<ProcessResult> {
    await this.#terminate();
    return this.result;
  }

  /** Stops the group; `result` rejects with the error. The first failure wins. */
  fail(error: unknown): void {
    if (this.#exited) return;
    this.#failure ??= { error };
    this.#terminate().catch(() => undefined);
  }

  readLines(name: OutputStream, stream: Readable): void {
    const lineLength = this.#options.limits?.line ?? defaultLineLength;
    const shown = this.#options.rowValues === 'struck-out' ? rowValueFilter() : undefined;
    const splitter = new LineSplitter(this.#options.redactor, lineLength, (line) => {
      const text = shown === undefined ? line : shown(line);
      if (text !== undefined) this.#line(name, text);
    });
    const guarded = (action: () => void): void => {
      try {
        action();
      } catch (error) {
        this.#failure ??= { error };
        this.fail(error);
      }
    };
    stream.on('data', (chunk: Uint8Array) => guarded(() => splitter.write(chunk)));
    const closed = new Promise<void>((resolve) => {
      stream.once('close', () => {
        guarded(() => splitter.end());
        resolve();
      });
    });
    this.#outputs.push({ stream, closed });
  }

  feed(stdin: Writable, input: NonNullable<ProcessOptions['input']>): void {
    // EPIPE: the reader had seen enough. Whether it was content is told by its exit code.
    stdin.on('error', () => undefined);
    if (typeof input === 'string' || input instanceof Uint8Array) {
      stdin.end(input);
      return;
    }
    const pumping = input instanceof Readable ? this.#pump(input, stdin) : this.#hand(input, stdin);
    pumping.catch((error: unknown) => this.fail(error));
    // Nobody is left to read it. After an ordinary end `unreadInput` decides.
    if (input instanceof Readable) this.result.catch(() => input.destroy());
  }

  /** As `#pump`, and a chunk is done with, by the kernel too, before the next is asked for. */
  async #hand(input: AsyncIterable<Uint8Array>, stdin: Writable): Promise<void> {
    for await (const chunk of input) {
      if (stdin.writable) await new Promise<void>((resolve) => stdin.write(chunk, () => resolve()));
      else if (this.#failure !== undefined || this.#options.unreadInput === 'destroy') break;
    }
    stdin.end();
  }

  async #pump(input: Readable, stdin: Writable): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      stdin.once('close', resolve);
    });
    for await (const chunk of input) {
      if (stdin.writable) {
        if (!stdin.write(chunk)) await Promise.race([new Promise((resolve) => stdin.once('drain', resolve)), closed]);
      } else if (this.#options.unreadInput === 'destroy') {
        break;
      }
    }
    stdin.end();
  }

  async #run(exit: Promise<Exit>, dismissWatcher: () => void): Promise<ProcessResult> {
    const { signal } = this.#options;
    const abort = (): void => this.fail(cancellation(signal));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    const progress = this.#reportProgress();
    try {
      const [code, endSignal] = await exit;
      this.#exited = true;
      const durationMilliseconds = Math.round(performance.now() - this.#started);
      // What it left running in the background is part of it.
      await this.#terminate();
      dismissWatcher();
      await this.#drainOutputs();
      if (this.#failure !== undefined) throw this.#failure.error;
      const facts = {
        durationMilliseconds,
        stdoutTail: this.#tails.stdout.toString(),
        stderrTail: this.#tails.stderr.toString(),
      };
      return endSignal === null
        ? { kind: 'exited', code: code ?? -1, ...facts }
        : { kind: 'signaled', signal: endSignal, ...facts };
    } finally {
      signal.removeEventListener('abort', abort);
      clearInterval(progress);
      for (const channel of this.channels) channel.destroy();
    }
  }

  #terminate(): Promise<void> {
    this.#termination ??= this.#endGroup();
    return this.#termination;
  }

  async #endGroup(): Promise<void> {
    if (signalGroup(this.pid, 'SIGTERM') === 'gone') return;
    const { limits, force } = this.#options;
    if (await waitUntilGroupGone(this.pid, limits?.grace ?? defaultGrace, force)) return;
    signalGroup(this.pid, 'SIGKILL');
    await waitUntilGroupGone(this.pid);
  }

  async #drainOutputs(): Promise<void> {
    const closed = Promise.all(this.#outputs.map((output) => output.closed));
    const ended = this.channels.map((channel) => {
      // Nobody listens to it, so it would never come to its end.
      if (channel.readableFlowing === null) channel.resume();
      return new Promise<void>((resolve) => {
        if (channel.readableEnded || channel.destroyed) resolve();
        channel.once('end', resolve).once('close', resolve);
      });
    });
    await Promise.race([Promise.all([closed, ...ended]), delay(outputGrace, undefined, { ref: false })]);
    for (const { stream } of this.#outputs) stream.destroy();
    await closed;
  }

  #line(stream: OutputStream, line: string): void {
    this.#lines += 1;
    this.#lastLine = line;
    this.#tails[stream].push(line);
    this.#options.onLine?.(stream, line);
  }

  #reportProgress(): NodeJS.Timeout | undefined {
    const { progress } = this.#options;
    if (progress === undefined) return undefined;
    return setInterval(() => {
      progress({
        elapsedMilliseconds: Math.round(performance.now() - this.#started),
        lines: this.#lines,
        lastLine: this.#lastLine,
      });
    }, progressInterval);
  }
}

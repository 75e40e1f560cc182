/** Turns references into secret values, inside the activity that needs them and nowhere else. */
import { readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { SecretReference } from '../contract/profile.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import { createRedactor } from '../process/redactor.ts';
import { streamProcess } from '../process/run.ts';

const COMMAND_LIMIT = 30_000;
const MAXIMUM_BYTES = 64 * 1024;

export interface SecretSource {
  /** The profile's folder: relative files and programs start here. */
  readonly home: string;
  readonly signal: AbortSignal;
}

/** For messages: names the reference, which is no secret. */
export function describeReference(reference: SecretReference): string {
  switch (reference.kind) {
    case 'environment':
      return `the environment variable ${reference.name}`;
    case 'file':
      return `the file ${reference.path}`;
    case 'command': {
      const line = reference.command.join(' ');
      return `the command "${line.length > 160 ? `${line.slice(0, 160)}...` : line}"`;
    }
  }
}

/**
 * The value of a secret. One trailing newline is not part of it.
 *
 * @throws StepError `StepRefused` where there is no such secret, `OutsideUnavailable` where its manager did not answer; the
 *   signal's reason after an abort. The text names the reference and never what a program wrote, which may hold the value.
 */
export async function resolveSecret(reference: SecretReference, source: SecretSource): Promise<string> {
  source.signal.throwIfAborted();
  const value = withoutNewline(await read(reference, source));
  if (value === '') throw refusal([`${describeReference(reference)} gave an empty value for a secret`]);
  if (value.includes('\0')) throw refusal([`${describeReference(reference)} gave bytes that are not text`]);
  return value;
}

async function read(reference: SecretReference, source: SecretSource): Promise<string> {
  switch (reference.kind) {
    case 'environment': {
      const value = process.env[reference.name];
      if (value === undefined)
        throw refusal([`${describeReference(reference)} is not set in the environment of this process`]);
      return value;
    }
    case 'file':
      return readSecretFile(reference, source);
    case 'command':
      return runSecretCommand(reference, source);
  }
}

async function readSecretFile(reference: SecretReference & { kind: 'file' }, { home }: SecretSource): Promise<string> {
  const path = resolve(home, reference.path);
  try {
    const { mode, size } = await stat(path);
    // Mounted secrets are often readable by all; but what anybody may write, anybody may choose.
    if ((mode & 0o002) !== 0) throw refusal([`${describeReference(reference)} may be written by anybody: chmod o-w`]);
    if (size > MAXIMUM_BYTES) throw refusal([`${describeReference(reference)} is too large for a secret`]);
    return decoded(await readFile(path), reference);
  } catch (error) {
    if (error instanceof StepError) throw error;
    throw refusal([`${describeReference(reference)} cannot be read (${errorCode(error)})`]);
  }
}

async function runSecretCommand(
  reference: SecretReference & { kind: 'command' },
  { home, signal }: SecretSource,
): Promise<string> {
  const limit = AbortSignal.timeout(COMMAND_LIMIT);
  const [file = '', ...args] = reference.command;
  try {
    const process = await streamProcess({
      file,
      args,
      directory: home,
      environment: workerEnvironment(),
      signal: AbortSignal.any([signal, limit]),
      redactor: createRedactor([]),
    });
    let bytes = 0;
    process.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAXIMUM_BYTES)
        process.stdout.destroy(refusal([`${describeReference(reference)} wrote too much for a secret`]));
    });
    return decoded(await buffer(process.stdout), reference);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (error instanceof StepError) throw error;
    if (error instanceof ProcessNotStarted)
      throw refusal([`${describeReference(reference)} cannot be run: ${error.message}`]);
    const why = limit.aborted ? `did not answer within ${COMMAND_LIMIT / 1000} s` : 'failed';
    throw new StepError(
      STEP_ERRORS.unavailable,
      `${describeReference(reference)} ${why}: run it by hand to see what it says (not shown here, it could hold the secret)`,
    );
  }
}

/** A secrets manager's client finds its server and its own credentials in the worker's environment. */
const workerEnvironment = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      value !== undefined && /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? [[name, value]] : [],
    ),
  );

function decoded(bytes: Buffer, reference: SecretReference): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw refusal([`${describeReference(reference)} gave bytes that are not text`]);
  }
}

const withoutNewline = (text: string): string => text.replace(/\r?\n$/, '');

const errorCode = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';

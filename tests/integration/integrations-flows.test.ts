import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { FlowRequest } from '../../src/contract/profile.ts';
import { withApplication } from '../../src/integrations/application.ts';
import { runFlow } from '../../src/integrations/flows.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { identify } from '../../scripts/stack/process-identity.ts';
import { serve } from '../http-server.ts';
import { testContext } from '../integration-context.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

let home: string;
const password = `pass-${randomBytes(8).toString('hex')}`;
const session = `session-${randomBytes(8).toString('hex')}`;

beforeAll(async () => {
  home = await temporaryDirectory('flows');
  await writeFile(join(home, 'password'), password, { mode: 0o600 });
});

const request = (name: string, more: Partial<FlowRequest>): FlowRequest => ({
  name,
  method: 'GET',
  path: '/',
  headers: {},
  secrets: {},
  expect: { status: [200], json: {}, contains: [] },
  save: {},
  timeout: 2_000,
  retryFor: 0,
  ...more,
});

const login = request('login', {
  method: 'POST',
  path: '/login',
  json: { username: 'admin', nested: { keep: 1 } },
  secrets: { '/password': { kind: 'file', path: 'password' } },
  save: { token: '/token' },
});

const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

describe('a flow', () => {
  test('logs in with a secret, carries the token on and uploads a file', async () => {
    await using server = await serve(({ path }) =>
      path === '/login'
        ? { body: { token: session } }
        : path === '/recordings'
          ? { status: 201, body: { id: 'a/b 1' } }
          : { body: 'sound of run' },
    );
    const upload = request('upload', {
      method: 'POST',
      path: '/recordings',
      headers: { Authorization: 'Bearer {{token}}' },
      upload: { field: 'file', fileName: 'check.wav', contentType: 'audio/wav', content: 'sound of {{runId}}' },
      expect: { status: [201], json: {}, contains: [] },
      save: { recording: '/id' },
    });
    const playback = request('playback', {
      path: '/recordings/{{recording}}/audio',
      expect: { status: [200], json: {}, contains: ['sound'] },
    });
    const context = testContext(home);
    const result = await runFlow({ name: 'all', requests: [login, upload, playback] }, `${server.url}/`, context);
    expect(result).toMatchObject({ name: 'all', requests: 3 });
    const [first, second, third] = server.seen;
    expect(JSON.parse(first?.body ?? '')).toEqual({ username: 'admin', nested: { keep: 1 }, password });
    expect(second?.headers.authorization).toBe(`Bearer ${session}`);
    expect(second?.headers['content-type']).toMatch(/^multipart\/form-data; boundary=/);
    expect(second?.body).toContain('name="file"; filename="check.wav"');
    expect(second?.body).toContain(`sound of ${context.run.runId}`);
    expect(third?.path).toBe('/recordings/a%2Fb%201/audio');
  });

  test('that fails names flow and request, and neither the password nor the token', async () => {
    await using server = await serve(({ path, headers, body }) =>
      path === '/login'
        ? { body: { token: session } }
        : { status: 500, body: `${headers.authorization} ${body} ${password}` },
    );
    const summary = request('summary', { path: '/summary', headers: { Authorization: 'Bearer {{token}}' } });
    const failure = await failureOf(
      runFlow({ name: 'admin', requests: [login, summary] }, server.url, testContext(home)),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toBe(
      'flow "admin", summary: GET /summary: status 500 instead of 200; it said: Bearer [redacted] [redacted]',
    );
  });

  test('waits for a result that takes its time', async () => {
    let asked = 0;
    await using server = await serve(() => ({ body: { status: (asked += 1) < 3 ? 'running' : 'done' } }));
    const result = request('transcript', {
      expect: { status: [200], json: { '/status': 'done' }, contains: [] },
      retryFor: 10_000,
    });
    await runFlow({ name: 'transcription', requests: [result] }, server.url, testContext(home));
    expect(server.seen).toHaveLength(3);
  });

  test('does not wait for ever', async () => {
    await using server = await serve(() => ({ body: { status: 'running' } }));
    const result = request('transcript', {
      expect: { status: [200], json: { '/status': 'done' }, contains: [] },
      retryFor: 700,
    });
    const failure = await failureOf(runFlow({ name: 'x', requests: [result] }, server.url, testContext(home)));
    expect(failure.message).toContain('/status is "running" instead of "done"');
  });

  test('fails where a value it wants to carry on is missing', async () => {
    await using server = await serve(() => ({ body: {} }));
    const failure = await failureOf(runFlow({ name: 'admin', requests: [login] }, server.url, testContext(home)));
    expect(failure.message).toContain('the answer has no value at /token to save as token');
  });
});

/** An application of a few lines: answers after a while, and starts a child of its own. */
const SERVER = `
const { spawn } = require('node:child_process');
const child = spawn('sleep', ['600'], { stdio: 'ignore' });
const started = Date.now();
require('node:http').createServer((request, response) => {
  response.statusCode = Date.now() - started < 300 ? 503 : 200;
  response.end(JSON.stringify({ child: child.pid, title: process.env.TITLE, port: process.env.OWN_PORT }));
}).listen(Number(process.argv[1]), '127.0.0.1');
`;

describe('an application', () => {
  const start = (command: readonly string[], more: { timeout?: number; readyPath?: string } = {}) => ({
    command,
    directory: home,
    environment: { TITLE: 'has {{braces}}' },
    templates: { OWN_PORT: '{{port}}' },
    readyPath: '/healthz',
    timeout: 10_000,
    values: {},
    redactor: createRedactor([password]),
    signal: new AbortController().signal,
    ...more,
  });
  const isAlive = (pid: number): boolean => identify(pid) !== undefined;
  const facts = async (baseUrl: string): Promise<{ child: number; title: string; port: string }> =>
    (await fetch(baseUrl)).json() as Promise<{ child: number; title: string; port: string }>;

  test('is handed out once it is ready, on a port of its own, and is gone afterwards with all its children', async () => {
    let seen: Awaited<ReturnType<typeof facts>> | undefined;
    const result = await withApplication(start([process.execPath, '-e', SERVER, '{{port}}']), async ({ baseUrl }) => {
      seen = await facts(baseUrl);
      expect(isAlive(seen.child)).toBe(true);
      expect(baseUrl).toBe(`http://127.0.0.1:${seen.port}`);
      return 'worked';
    });
    expect(result).toBe('worked');
    expect(seen?.title).toBe('has {{braces}}');
    expect(isAlive(seen?.child ?? 0)).toBe(false);
    await expect(fetch(`http://127.0.0.1:${seen?.port}`)).rejects.toThrow('fetch failed');
  });

  test('is stopped when the work with it fails', async () => {
    let child = 0;
    const work = withApplication(start([process.execPath, '-e', SERVER, '{{port}}']), async ({ baseUrl }) => {
      child = (await facts(baseUrl)).child;
      throw new Error('the flow failed');
    });
    await expect(work).rejects.toThrow('the flow failed');
    expect(isAlive(child)).toBe(false);
  });

  test('that ends while it starts is reported with what it wrote, without secrets', async () => {
    const failure = await failureOf(
      withApplication(start(['sh', '-c', `echo "no database for ${password}" >&2; exit 3`]), () => Promise.resolve()),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toBe('the application ended while it started (exit code 3): no database for [redacted]');
  });

  test('that never gets ready is stopped', async () => {
    const failure = await failureOf(
      withApplication(start(['sh', '-c', 'echo thinking; sleep 600'], { timeout: 3_000 }), () => Promise.resolve()),
    );
    expect(failure.message).toContain('was not ready within 3 s (/healthz: no answer): thinking');
  });
});

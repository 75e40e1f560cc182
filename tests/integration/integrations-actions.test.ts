import { randomBytes } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Announcement } from '../../src/contract/evidence/actions.ts';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { CommandAction, HttpAction } from '../../src/contract/profile.ts';
import { deliver } from '../../src/integrations/actions.ts';
import { runCommandAction } from '../../src/integrations/command-action.ts';
import { sendHttpAction } from '../../src/integrations/http-action.ts';
import { serve } from '../http-server.ts';
import { testContext } from '../integration-context.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

let home: string;
const secret = `token-${randomBytes(12).toString('hex')}`;
const reference = { secret: { kind: 'file', path: 'token' } } as const;

const message: Announcement = {
  kind: 'window-announced',
  title: 'Planned maintenance',
  text: 'The database will be **migrated**.\nTonight.',
  facts: { service: 'whisper-transcriber', minutes: 10 },
};

const command = (words: readonly string[], more: Partial<CommandAction> = {}): CommandAction => ({
  kind: 'command',
  command: words,
  directory: 'profile',
  environment: {},
  timeout: 10_000,
  ...more,
});

const http = (url: HttpAction['url'], more: Partial<HttpAction> = {}): HttpAction => ({
  kind: 'http',
  method: 'POST',
  url,
  headers: {},
  expect: { status: [200], json: {}, contains: [] },
  timeout: 2_000,
  ...more,
});

const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

beforeAll(async () => {
  home = await temporaryDirectory('actions');
  await writeFile(join(home, 'token'), `${secret}\n`, { mode: 0o600 });
});

describe('a command', () => {
  test('gets the message as JSON on standard input, its arguments filled in and read by no shell', async () => {
    const context = testContext(home);
    const action = command([
      'sh',
      '-c',
      'cat > seen.json; printf "%s" "$1" > argument',
      'sh',
      '{{changeTicket}}; touch no',
    ]);
    const delivery = await deliver(action, message, 'key-1', context);
    expect(delivery).toEqual({ to: 'command sh', answer: 'exit code 0' });
    expect(JSON.parse(await readFile(join(home, 'seen.json'), 'utf8'))).toEqual({
      key: 'key-1',
      ...message,
      run: expect.objectContaining({ releaseTag: 'v1.1.0', runId: context.run.runId }),
    });
    expect(await readFile(join(home, 'argument'), 'utf8')).toBe('CHG-1042 / urgent; touch no');
  });

  test('gets secrets by its environment, and the worker’s own environment stays away from it', async () => {
    process.env['RUNBOOK_TEST_PRIVATE'] = 'private';
    const context = testContext(home);
    const action = command(['sh', '-c', 'env; echo "got $TOKEN"'], {
      environment: { TOKEN: reference, PLAIN: '{{service}}' },
    });
    const { output } = await runCommandAction(action, '', context);
    delete process.env['RUNBOOK_TEST_PRIVATE'];
    expect(output).toContain('PLAIN=whisper-transcriber');
    expect(output).toContain('got [redacted]');
    expect(output).not.toContain('private');
  });

  test('that fails is told with the end of what it wrote, without secrets', async () => {
    const action = command(['sh', '-c', 'echo "cannot log in with $TOKEN" >&2; exit 7'], {
      environment: { TOKEN: reference },
    });
    const failure = await failureOf(runCommandAction(action, '', testContext(home)));
    expect(failure.type).toBe(STEP_ERRORS.processFailed);
    expect(failure.message).toBe('command sh exited with code 7: cannot log in with [redacted]');
    expect(JSON.stringify(failure.details)).not.toContain(secret);
  });

  test('that does not end is stopped at its time limit', async () => {
    const failure = await failureOf(
      runCommandAction(command(['sleep', '60'], { timeout: 300 }), '', testContext(home)),
    );
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('did not end within 0.3 s');
  });

  test('that does not exist is refused', async () => {
    const failure = await failureOf(runCommandAction(command(['./no-such-tool']), '', testContext(home)));
    expect(failure.type).toBe(STEP_ERRORS.refused);
  });

  test('whose placeholder has no value yet is not run', async () => {
    const failure = await failureOf(runCommandAction(command(['touch', 'ran-{{outcome}}']), '', testContext(home)));
    expect(failure.message).toBe('{{outcome}} has no value at this step of this run');
    await expect(stat(join(home, 'ran-'))).rejects.toThrow('ENOENT');
  });
});

describe('an HTTP receiver', () => {
  test('gets the message as JSON with its key, and secret headers', async () => {
    await using server = await serve(() => ({ status: 200 }));
    const action = http(`${server.url}/hooks/{{changeTicket}}?by={{requestedBy}}`, {
      headers: { 'X-Api-Key': reference },
    });
    const delivery = await deliver(action, message, 'key-2', testContext(home));
    expect(delivery.answer).toBe('status 200');
    expect(delivery.to).toBe(`POST ${server.url}/hooks/{{changeTicket}}`);
    const [seen] = server.seen;
    expect(seen?.path).toBe('/hooks/CHG-1042%20%2F%20urgent?by=dana%40example.com');
    expect(seen?.headers).toMatchObject({
      'x-api-key': secret,
      'idempotency-key': 'key-2',
      'content-type': 'application/json',
    });
    expect(JSON.parse(seen?.body ?? '')).toMatchObject({ ...message, key: 'key-2' });
  });

  test('gets a body of the action’s own, filled in', async () => {
    await using server = await serve(() => ({}));
    await deliver(
      http(server.url, { body: { text: '*{{title}}*\n{{text}}', to: ['#{{service}}'] } }),
      message,
      'k',
      testContext(home),
    );
    expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({
      text: '*Planned maintenance*\nThe database will be **migrated**.\nTonight.',
      to: ['#whisper-transcriber'],
    });
  });

  test('whose address is a secret is not named when it fails', async () => {
    await using server = await serve(() => ({ status: 400, body: `no such hook ${secret}` }));
    await writeFile(join(home, 'webhook'), `${server.url}/${secret}`, { mode: 0o600 });
    const failure = await failureOf(
      deliver(
        http({ secret: { kind: 'file', path: 'webhook' } }, { headers: { 'X-Api-Key': reference } }),
        message,
        'k',
        testContext(home),
      ),
    );
    expect(failure.type).toBe(STEP_ERRORS.checkFailed);
    expect(failure.message).toContain('POST the address given by reference: status 400 instead of 200');
    expect(failure.message).not.toContain(secret);
    expect(failure.message).not.toContain(server.url);
  });

  test.each([429, 502, 503, 504])('that answers %i is worth another try', async (status) => {
    await using server = await serve(() => ({ status }));
    expect((await failureOf(deliver(http(server.url), message, 'k', testContext(home)))).type).toBe(
      STEP_ERRORS.unavailable,
    );
  });

  test('that does not answer in time, or is not there, is worth another try', async () => {
    await using silent = await serve(() => undefined);
    const late = await failureOf(deliver(http(silent.url, { timeout: 200 }), message, 'k', testContext(home)));
    expect(late.type).toBe(STEP_ERRORS.unavailable);
    expect(late.message).toContain('no answer within 0.2 s');
    const { url } = silent;
    await silent[Symbol.asyncDispose]();
    const gone = await failureOf(deliver(http(url), message, 'k', testContext(home)));
    expect(gone.type).toBe(STEP_ERRORS.unavailable);
    expect(gone.message).toContain('cannot be reached');
  });

  test('is not followed to another host, which would get the headers', async () => {
    await using other = await serve(() => ({ body: 'stolen' }));
    await using server = await serve(() => ({ status: 302, headers: { location: `${other.url}/` } }));
    const action = http(server.url, { method: 'GET', headers: { 'X-Api-Key': reference } });
    const failure = await failureOf(sendHttpAction(action, undefined, testContext(home)));
    expect(failure.message).toContain('status 302, a redirect that is not followed');
    expect(other.seen).toHaveLength(0);
  });

  test('is followed within its own host', async () => {
    await using server = await serve(({ path }) =>
      path === '/old' ? { status: 301, headers: { location: '/new' } } : { body: { ok: true } },
    );
    const action = http(`${server.url}/old`, {
      method: 'GET',
      expect: { status: [200], json: { '/ok': true }, contains: [] },
    });
    expect((await sendHttpAction(action, undefined, testContext(home))).json).toEqual({ ok: true });
  });

  test('does not get a header that a secret breaks, and the secret is not quoted', async () => {
    await writeFile(join(home, 'broken'), `${secret}\nX-Other: 1`, { mode: 0o600 });
    const action = http('http://127.0.0.1:9', {
      headers: { 'X-Api-Key': { secret: { kind: 'file', path: 'broken' } } },
    });
    const failure = await failureOf(deliver(action, message, 'k', testContext(home)));
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain('the value of the header x-api-key has characters that headers cannot carry');
    expect(failure.message).not.toContain(secret);
  });
});

describe('an HTTP check', () => {
  const check = async (body: unknown, expect: Partial<HttpAction['expect']>): Promise<string> => {
    await using server = await serve(() => ({ body }));
    const action = http(`${server.url}/healthz`, {
      method: 'GET',
      expect: { status: [200], json: {}, contains: [], ...expect },
    });
    return await sendHttpAction(action, undefined, testContext(home)).then(
      () => 'passed',
      (error: StepError) => error.message,
    );
  };

  test('judges the body, not only the status', async () => {
    expect(
      await check(
        { status: 'ok', checks: [{ name: 'db', up: true }] },
        { json: { '/status': 'ok', '/checks/0/up': true } },
      ),
    ).toBe('passed');
    expect(await check({ status: 'degraded' }, { json: { '/status': 'ok' } })).toContain(
      '/status is "degraded" instead of "ok"',
    );
    expect(await check({}, { json: { '/status': 'ok' } })).toContain('/status is missing instead of "ok"');
    expect(await check('fine', { json: { '/status': 'ok' } })).toContain('the answer is not JSON');
    expect(await check({ a: { b: 1, c: 2 } }, { json: { '/a': { c: 2, b: 1 } } })).toBe('passed');
    expect(await check({ release: 'v1.1.0' }, { json: { '/release': '{{releaseTag}}' } })).toBe('passed');
    expect(await check('hello world', { contains: ['world'] })).toBe('passed');
    expect(await check('hello', { contains: ['world'] })).toContain('does not contain "world"');
  });

  test('names everything that is not as expected', async () => {
    expect(await check({ a: 1 }, { status: [204], json: { '/a': 2 }, contains: ['b'] })).toContain(
      'status 200 instead of 204; /a is 1 instead of 2; the answer does not contain "b"',
    );
  });
});

describe('a file', () => {
  test('gets one JSON line for each message, readable by its owner only', async () => {
    const context = testContext(home);
    const action = { kind: 'file', path: 'outbox/{{service}}.jsonl' } as const;
    await deliver(action, message, 'run/step/1', context);
    await deliver(action, { ...message, title: 'Second' }, 'run/step/2', context);
    const path = join(home, 'outbox', 'whisper-transcriber.jsonl');
    const lines = (await readFile(path, 'utf8')).trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as Announcement).title)).toEqual(['Planned maintenance', 'Second']);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test('gets one Markdown section, and a retry does not double it', async () => {
    const context = testContext(home);
    const action = { kind: 'file', path: 'ticket.md' } as const;
    expect((await deliver(action, message, 'run/step/1', context)).answer).toContain('bytes appended');
    expect((await deliver(action, message, 'run/step/1', context)).answer).toBe('written by an earlier attempt');
    await deliver(action, message, 'run/step#2/1', context);
    const text = await readFile(join(home, 'ticket.md'), 'utf8');
    expect(text.match(/^## Planned maintenance$/gm)).toHaveLength(2);
    expect(text).toContain('The database will be **migrated**.\nTonight.');
  });

  test('keeps a line that was broken off apart from the next', async () => {
    await writeFile(join(home, 'torn.jsonl'), '{"key":"a","tit');
    await deliver({ kind: 'file', path: 'torn.jsonl' }, message, 'b', testContext(home));
    const lines = (await readFile(join(home, 'torn.jsonl'), 'utf8')).trim().split('\n');
    expect(lines).toHaveLength(2);
    expect((JSON.parse(lines[1] ?? '') as { key: string }).key).toBe('b');
  });

  test('that cannot be written is refused', async () => {
    await writeFile(join(home, 'plain'), '');
    const failure = await failureOf(
      deliver({ kind: 'file', path: 'plain/inside.md' }, message, 'k', testContext(home)),
    );
    expect(failure.type).toBe(STEP_ERRORS.refused);
    expect(failure.message).toContain('plain/inside.md cannot be written');
  });
});

import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { STEP_ERRORS, type StepError } from '../../src/contract/errors.ts';
import type { CommandAction, HttpAction, Switch } from '../../src/contract/profile.ts';
import { engageSwitch, readSwitch, releaseSwitch } from '../../src/integrations/switch.ts';
import { serve } from '../http-server.ts';
import { testContext } from '../integration-context.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

let home: string;
beforeAll(async () => {
  home = await temporaryDirectory('switch');
  // Keeps its state in a file and a record of what it was told.
  await writeFile(
    join(home, 'freezectl'),
    `#!/bin/sh
case "$1" in
  state) cat state ;;
  broken) echo frobnicated ;;
  late) echo "$1" >> log; printf 3 > countdown ;;
  lagging) left=$(cat countdown); if [ "$left" = 0 ]; then echo engaged; else printf $((left - 1)) > countdown; echo released; fi ;;
  once) key=$(sed 's/.*"key":"\\([^"]*\\)".*/\\1/'); grep -qxF "$key" keys 2>/dev/null && { echo known; exit; }
    echo "$key" >> keys; echo "$2" >> log; echo "now $2" ;;
  nothing) echo "$1" >> log ;;
  *) echo "$1" >> log; printf "$1" > state; echo "now $1" ;;
esac
`,
  );
  await chmod(join(home, 'freezectl'), 0o755);
});
beforeEach(async () => {
  await writeFile(join(home, 'state'), 'released');
  await writeFile(join(home, 'log'), '');
});

const command = (...words: readonly string[]): CommandAction => ({
  kind: 'command',
  command: ['./freezectl', ...words],
  directory: 'profile',
  environment: {},
  timeout: 5_000,
});

type Actions = Extract<Switch['mechanism'], { kind: 'actions' }>;
const freeze = (changes: Partial<Actions> = {}): Switch => ({
  name: 'deployments',
  kind: 'freeze',
  mechanism: {
    kind: 'actions',
    state: command('state'),
    engage: command('engaged'),
    release: command('released'),
    ...changes,
  },
  keepAfter: [],
});

const log = async (): Promise<string[]> =>
  (await readFile(join(home, 'log'), 'utf8')).split('\n').filter((line) => line !== '');
const failureOf = (work: Promise<unknown>): Promise<StepError> =>
  work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: StepError) => error,
  );

describe('a switch', () => {
  test('is engaged, released, and each is confirmed by its state', async () => {
    const context = testContext(home);
    const before = await readSwitch(freeze(), context);
    expect(before).toEqual({ state: 'released', detail: {} });
    expect(await engageSwitch(freeze(), context)).toEqual({
      state: 'engaged',
      detail: { action: 'now engaged', confirmed: 'by its state' },
    });
    expect((await readSwitch(freeze(), context)).state).toBe('engaged');
    expect(await releaseSwitch(freeze(), before, context)).toMatchObject({ state: 'released' });
    expect(await log()).toEqual(['engaged', 'released']);
  });

  test('can be engaged and released twice: the second time nothing is done', async () => {
    const context = testContext(home);
    const before = await readSwitch(freeze(), context);
    await engageSwitch(freeze(), context);
    expect((await engageSwitch(freeze(), context)).detail['note']).toBe('was engaged already');
    await releaseSwitch(freeze(), before, context);
    expect((await releaseSwitch(freeze(), before, context)).detail['note']).toBe('was released already');
    expect(await log()).toEqual(['engaged', 'released']);
  });

  test('that was engaged before the run stays so', async () => {
    await writeFile(join(home, 'state'), 'engaged');
    const context = testContext(home);
    const before = await readSwitch(freeze(), context);
    await engageSwitch(freeze(), context);
    expect((await releaseSwitch(freeze(), before, context)).state).toBe('engaged');
    expect(await log()).toEqual([]);
    expect(await readFile(join(home, 'state'), 'utf8')).toBe('engaged');
  });

  test('that takes a moment is waited for', async () => {
    await writeFile(join(home, 'countdown'), '9');
    const late = freeze({ engage: command('late'), state: command('lagging') });
    expect((await engageSwitch(late, testContext(home))).state).toBe('engaged');
    expect(await log()).toEqual(['late']);
  });

  test('whose state cannot be understood is not taken for engaged', async () => {
    const context = testContext(home);
    const broken = freeze({ state: command('broken') });
    expect(await readSwitch(broken, context)).toEqual({ state: 'unknown', detail: { answer: '"frobnicated"' } });
    const failure = await failureOf(engageSwitch(broken, context, { within: 600 }));
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('tells neither "engaged" nor "released"');
  });

  test('that accepts the order and does nothing is not taken for engaged', async () => {
    const failure = await failureOf(
      engageSwitch(freeze({ engage: command('nothing') }), testContext(home), { within: 600 }),
    );
    expect(failure.type).toBe(STEP_ERRORS.unavailable);
    expect(failure.message).toContain('command ./freezectl is still released');
  });

  test('that cannot tell its state counts by the success of its action', async () => {
    const context = testContext(home);
    const blind: Switch = {
      ...freeze(),
      mechanism: { kind: 'actions', engage: command('engaged'), release: command('released') },
    };
    const before = await readSwitch(blind, context);
    expect(before.state).toBe('unknown');
    expect((await engageSwitch(blind, context)).detail['confirmed']).toBe('by the success of the action only');
    expect((await releaseSwitch(blind, before, context)).state).toBe('released');
    expect(await log()).toEqual(['engaged', 'released']);
  });

  test('that knows requests by their key is engaged for each step that asks for it, and once for the attempts of a step', async () => {
    const pooler: Switch = {
      ...freeze(),
      name: 'pooler',
      kind: 'pooler',
      mechanism: { kind: 'actions', engage: command('once', 'engaged'), release: command('once', 'released') },
    };
    const at = (step: string) => ({ ...testContext(home), step });
    const before = await readSwitch(pooler, at('recovery.restore/pooler/pooler/before'));
    for (const [pause, resume] of [
      ['recovery.restore/pooler/pooler', 'recovery.restore/pooler/pooler#2'],
      ['recovery.restore/pooler/pooler#3', 'recovery.restore/pooler/pooler#4'],
    ] as const) {
      await engageSwitch(pooler, at(pause));
      await engageSwitch(pooler, at(pause));
      await releaseSwitch(pooler, before, at(resume));
    }
    expect(await log()).toEqual(['engaged', 'released', 'engaged', 'released']);
  });

  test('kept in a file is written for each step that asks for it, and once for the attempts of a step', async () => {
    const file = { kind: 'file', path: join(home, 'switches.jsonl') } as const;
    const noted: Switch = { ...freeze(), mechanism: { kind: 'actions', engage: file, release: file } };
    for (const step of ['apply.freeze/deployments', 'apply.freeze/deployments', 'apply.freeze/deployments#2']) {
      await engageSwitch(noted, { ...testContext(home), step });
    }
    expect((await readFile(file.path, 'utf8')).trimEnd().split('\n')).toHaveLength(2);
  });

  test('is not switched by an attempt that was given up for lost', async () => {
    const context = { ...testContext(home), requireCurrent: () => Promise.reject(new Error('given up for lost')) };
    await expect(engageSwitch(freeze(), context)).rejects.toThrow('given up for lost');
    expect(await log()).toEqual([]);
  });

  test('works over HTTP, with its state in a JSON answer', async () => {
    let silenced = false;
    await using server = await serve(({ method }) => {
      if (method === 'PUT') silenced = true;
      if (method === 'DELETE') silenced = false;
      return { body: { alerts: { silenced } } };
    });
    const http = (method: HttpAction['method']): HttpAction => ({
      kind: 'http',
      method,
      url: `${server.url}/silences/{{service}}`,
      headers: {},
      expect: { status: [200], json: {}, contains: [] },
      timeout: 2_000,
    });
    const silence: Switch = {
      ...freeze({ state: http('GET'), statePointer: '/alerts/silenced', engage: http('PUT'), release: http('DELETE') }),
      name: 'alerts',
      kind: 'silence',
    };
    const context = testContext(home);
    const before = await readSwitch(silence, context);
    expect(before.state).toBe('released');
    expect((await engageSwitch(silence, context)).state).toBe('engaged');
    expect(silenced).toBe(true);
    expect((await releaseSwitch(silence, before, context)).state).toBe('released');
    expect(silenced).toBe(false);
    expect(server.seen.map(({ method }) => method)).toEqual(['GET', 'GET', 'PUT', 'GET', 'GET', 'DELETE', 'GET']);
  });
});

import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Redactor } from '../../src/process/redactor.ts';
import { type CheckoutRequest, ensureCheckout, resolveTag } from '../../src/repository/checkout.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const run = promisify(execFile);
const redactor = new Redactor([]);
const never = (): AbortSignal => new AbortController().signal;

let home: string;
let origin: string;
let stateDirectory: string;

const git = async (...args: readonly string[]): Promise<string> => {
  const { stdout } = await run('git', [
    '-C',
    origin,
    '-c',
    'user.name=Test',
    '-c',
    'user.email=test@example.com',
    ...args,
  ]);
  return stdout.trim();
};

async function commit(file: string, content: string): Promise<string> {
  await writeFile(join(origin, file), content);
  await git('add', '--all');
  await git('commit', '--quiet', '--message', `Change ${file}`);
  return git('rev-parse', 'HEAD');
}

const resolve = (tag: string, known?: string, url = origin): Promise<string> =>
  resolveTag({ url, tag, signal: never(), redactor, ...(known === undefined ? {} : { known }) });

const request = (commitName: string, change: Partial<CheckoutRequest> = {}): CheckoutRequest => ({
  url: origin,
  commit: commitName,
  stateDirectory,
  signal: never(),
  redactor,
  ...change,
});

beforeAll(async () => {
  home = await temporaryDirectory('checkout');
});
beforeEach(async () => {
  origin = await mkdtemp(join(home, 'origin-'));
  stateDirectory = await mkdtemp(join(home, 'state-'));
  await git('init', '--quiet', '--initial-branch=main');
});

describe('a release tag', () => {
  it('is resolved to its commit, with and without a tag object', async () => {
    const first = await commit('file', '1');
    await git('tag', 'v1');
    const second = await commit('file', '2');
    await git('tag', '--annotate', 'v2', '--message', 'Second');
    expect(await resolve('v1')).toBe(first);
    expect(await resolve('v2')).toBe(second);
    expect(await resolve('v2', second)).toBe(second);
  });

  it('that has moved since it was reviewed is refused with both commits', async () => {
    const first = await commit('file', '1');
    const second = await commit('file', '2');
    await git('tag', 'v1');
    await expect(resolve('v1', first)).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringMatching(new RegExp(`has moved: it was ${first} .* is ${second} now`)),
    });
  });

  it('that does not exist, or is a branch, is refused', async () => {
    await commit('file', '1');
    await git('branch', 'release');
    await expect(resolve('v9')).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('There is no tag "v9"'),
    });
    await expect(resolve('release')).rejects.toMatchObject({
      message: expect.stringContaining('"release" is a branch, not a tag'),
    });
  });

  it.each(['--upload-pack=touch /tmp/x', '-x', 'v*', 'a..b', 'a b', '', 'v1~1', 'v1^{}', 'x.lock', 'a\nb'])(
    'named %j is refused before git sees it',
    async (tag) => {
      await expect(resolve(tag)).rejects.toMatchObject({
        type: 'StepRefused',
        message: expect.stringContaining('not a name for a git tag'),
      });
    },
  );

  it('of a repository that is not there, does not answer, or is an option: says what to do, without the password', async () => {
    await expect(resolve('v1', undefined, join(home, 'nowhere'))).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('Correct repository.url'),
    });
    await expect(resolve('v1', undefined, '--upload-pack=touch')).rejects.toMatchObject({ type: 'StepRefused' });
    const failure: unknown = await resolve('v1', undefined, 'http://user:geheim@127.0.0.1:9/x.git').catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({
      type: 'OutsideUnavailable',
      message: expect.stringContaining('http://127.0.0.1:9/x.git'),
    });
    expect(String(failure) + JSON.stringify(failure)).not.toContain('geheim');
  });
});

describe('a checkout', () => {
  it('holds exactly the files of its commit, and is used again', async () => {
    const first = await commit('file', 'one');
    await commit('file', 'two');
    const directory = await ensureCheckout(request(first));
    expect(await readFile(join(directory, 'file'), 'utf8')).toBe('one');
    expect(await ensureCheckout(request(first))).toBe(directory);
  });

  it('of a commit made after the mirror is fetched', async () => {
    const first = await commit('file', 'one');
    await ensureCheckout(request(first));
    const second = await commit('file', 'two');
    expect(await readFile(join(await ensureCheckout(request(second)), 'file'), 'utf8')).toBe('two');
  });

  it('of a commit that is gone from the repository is refused', async () => {
    await commit('file', 'one');
    await expect(ensureCheckout(request('a'.repeat(40)))).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('is not in'),
    });
    await expect(ensureCheckout(request('HEAD'))).rejects.toMatchObject({ type: 'StepRefused' });
  });

  it('is built anew when a file of the release was changed or a Python file added', async () => {
    await writeFile(join(origin, '.gitignore'), 'ignored.py\n');
    const first = await commit('file', 'one');
    const directory = await ensureCheckout(request(first));
    await writeFile(join(directory, 'ignored.py'), '');
    await writeFile(join(directory, 'upload.bin'), '');
    expect(await ensureCheckout(request(first))).toBe(directory);

    await writeFile(join(directory, 'file'), 'tampered');
    const second = await ensureCheckout(request(first));
    expect(second).not.toBe(directory);
    expect(await readFile(join(second, 'file'), 'utf8')).toBe('one');

    await writeFile(join(second, 'stray_revision.py'), '');
    const third = await ensureCheckout(request(first));
    expect(third).not.toBe(second);
    expect(await readdir(third)).not.toContain('stray_revision.py');
  });

  it('is one and the same for attempts at the same time, prepared in the place where it stays', async () => {
    const first = await commit('file', 'one');
    const prepare = { command: ['sh', '-c', 'mkdir -p .venv && pwd >.venv/home.py && sleep 0.2'], timeout: 20_000 };
    const directories = await Promise.all(Array.from({ length: 4 }, () => ensureCheckout(request(first, { prepare }))));
    expect(new Set(directories).size).toBe(1);
    expect((await readFile(join(directories[0]!, '.venv/home.py'), 'utf8')).trim()).toBe(directories[0]);
    expect(await ensureCheckout(request(first, { prepare }))).toBe(directories[0]);
  });

  it('that could not be prepared does not count, and the next attempt starts fresh', async () => {
    const first = await commit('file', 'one');
    const marker = join(stateDirectory, 'marker');
    const prepare = {
      command: ['sh', '-c', `[ -e ${marker} ] || { echo "index is down" >&2; exit 3; }`],
      timeout: 20_000,
    };
    await expect(ensureCheckout(request(first, { prepare }))).rejects.toMatchObject({
      type: 'ProcessFailed',
      message: expect.stringContaining('index is down'),
    });
    await writeFile(marker, '');
    const directory = await ensureCheckout(request(first, { prepare }));
    expect(await readFile(join(directory, 'file'), 'utf8')).toBe('one');
    const [repository] = await readdir(join(stateDirectory, 'repositories'));
    const left = (await readdir(join(stateDirectory, 'repositories', repository!))).filter((name) =>
      /^[0-9a-f]{12}-/.test(name),
    );
    expect(left.map((name) => join(stateDirectory, 'repositories', repository!, name))).toEqual([directory]);
  });

  it('whose preparation changes files of the release, or is no program, or takes too long, is refused', async () => {
    const first = await commit('uv.lock', 'one');
    const withPrepare = (command: readonly string[], timeout = 20_000) =>
      ensureCheckout(request(first, { prepare: { command, timeout } }));
    await expect(withPrepare(['sh', '-c', 'echo two >uv.lock'])).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('uv.lock'),
    });
    await expect(withPrepare(['no-such-program'])).rejects.toMatchObject({
      type: 'StepRefused',
      message: expect.stringContaining('cannot be run'),
    });
    await expect(withPrepare(['sleep', '30'], 200)).rejects.toMatchObject({
      type: 'ProcessFailed',
      message: expect.stringContaining('took longer than 0.2 s'),
    });
  });

  it("runs nobody's hooks", async () => {
    const first = await commit('file', 'one');
    const hooks = await mkdtemp(join(home, 'hooks-'));
    const ran = join(hooks, 'ran');
    await writeFile(join(hooks, 'post-checkout'), `#!/bin/sh\ntouch ${ran}\n`, { mode: 0o755 });
    const configuration = join(hooks, 'gitconfig');
    await writeFile(configuration, `[core]\n\thooksPath = ${hooks}\n`);
    const before = process.env['GIT_CONFIG_GLOBAL'];
    process.env['GIT_CONFIG_GLOBAL'] = configuration;
    try {
      await ensureCheckout(request(first));
    } finally {
      if (before === undefined) delete process.env['GIT_CONFIG_GLOBAL'];
      else process.env['GIT_CONFIG_GLOBAL'] = before;
    }
    expect(await readdir(hooks)).not.toContain('ran');
  });

  it('stops when it is cancelled, and leaves nothing that counts', async () => {
    const first = await commit('file', 'one');
    const stop = new AbortController();
    const reason = new Error('cancelled by the test');
    const building = ensureCheckout(
      request(first, {
        prepare: { command: ['sh', '-c', 'echo preparing; sleep 60'], timeout: 60_000 },
        signal: stop.signal,
        progress: (line) => {
          if (line === 'preparing') stop.abort(reason);
        },
      }),
    );
    await expect(building).rejects.toBe(reason);
    expect(await readFile(join(await ensureCheckout(request(first)), 'file'), 'utf8')).toBe('one');
  });
});

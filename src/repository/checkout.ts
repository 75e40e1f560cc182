import { createHash, randomBytes } from 'node:crypto';
import { link, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { git, type GitOptions, requireUrl, runGit, shownUrl } from './git.ts';
import { type Prepare, prepareCheckout } from './prepare.ts';
import { isCommit } from './release-tag.ts';

export { resolveTag } from './release-tag.ts';

export interface CheckoutRequest {
  readonly url: string;
  /** Full object name. */
  readonly commit: string;
  /** Cache of mirrors and checkouts. May be shared between workers and may be lost at any time. */
  readonly stateDirectory: string;
  /** Run once in the fresh checkout. */
  readonly prepare?: Prepare;
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
  /** The last line of what is going on. */
  readonly progress?: (line: string) => void;
}

/** What is known of a finished checkout; its file is what makes the folder count. */
interface CheckoutRecord {
  readonly directory: string;
  /** Digest of Python files that are there beside those of the commit (`prepare` may make some). */
  readonly untracked: string;
}

/**
 * A folder with exactly the files of a commit, prepared. An earlier one is used again if it is still what it was.
 *
 * Safe against other attempts at the same time without any lock, which could outlive its holder: every attempt builds a
 * folder of its own and the first to be ready publishes its name. It is built where it stays, because virtual
 * environments cannot be moved.
 *
 * @throws StepError naming the remedy
 */
export async function ensureCheckout(request: CheckoutRequest): Promise<string> {
  requireUrl(request.url);
  if (!isCommit(request.commit)) {
    throw new StepError(STEP_ERRORS.refused, `"${request.commit.slice(0, 80)}" is not the full name of a commit.`);
  }
  const repository = join(request.stateDirectory, 'repositories', digest(request.url));
  const recordFile = join(
    repository,
    `${request.commit}-${digest(JSON.stringify(request.prepare?.command ?? []))}.json`,
  );
  await mkdir(repository, { recursive: true, mode: 0o700 });

  const existing = await readRecord(recordFile);
  if (existing !== undefined) {
    const directory = join(repository, existing.directory);
    if (await isIntact(directory, existing, request)) return directory;
    request.progress?.('the earlier checkout was altered: building a new one');
    await rm(recordFile, { force: true });
  }
  await removeAbandoned(repository);
  const name = `${request.commit.slice(0, 12)}-${randomBytes(4).toString('hex')}`;
  const directory = join(repository, name);
  try {
    await build(directory, repository, request);
    const record = { directory: name, untracked: await untrackedSources(directory, request) };
    const published = await publish(recordFile, record);
    if (published.directory !== name) await rm(directory, { recursive: true, force: true });
    return join(repository, published.directory);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function build(directory: string, repository: string, request: CheckoutRequest): Promise<void> {
  const options = gitOptions(request);
  const mirror = await mirrorWithCommit(repository, request);
  await git(['clone', '--no-checkout', '--', mirror, directory], request.url, options);
  const inside = { ...options, directory };
  await git(['checkout', '--detach', request.commit], request.url, inside);
  const head = (await git(['rev-parse', 'HEAD'], request.url, inside)).trim();
  if (head !== request.commit) {
    throw new StepError(STEP_ERRORS.processFailed, `git checked out ${head} in place of ${request.commit}.`);
  }
  if (request.prepare === undefined) return;
  await prepareCheckout(directory, request.prepare, request);
  const changed = await trackedChanges(directory, request);
  if (changed.length > 0) {
    throw new StepError(
      STEP_ERRORS.refused,
      `repository.prepare changes files of the release: ${changed.slice(0, 5).join(', ')}. Use a command that does not (uv sync --frozen, npm ci).`,
    );
  }
}

/** A bare mirror of branches and tags that holds the commit. */
async function mirrorWithCommit(repository: string, request: CheckoutRequest): Promise<string> {
  const mirror = join(repository, 'mirror.git');
  if (!(await isDirectory(mirror))) {
    const own = join(repository, `mirror-${randomBytes(4).toString('hex')}.git`);
    try {
      await git(['clone', '--bare', '--progress', '--', request.url, own], request.url, tellingOptions(request));
      await rename(own, mirror).catch(async (error: unknown) => {
        // Another attempt was first: its mirror is as good.
        if (!(await isDirectory(mirror))) throw error;
      });
    } finally {
      await rm(own, { recursive: true, force: true });
    }
  }
  const inside = { ...gitOptions(request), directory: mirror };
  if (await hasCommit(request.commit, inside)) return mirror;
  const fetched = await fetchAll(mirror, request);
  if (await hasCommit(request.commit, inside)) return mirror;
  if (fetched !== undefined) throw fetched;
  throw new StepError(
    STEP_ERRORS.refused,
    `The commit ${request.commit} is not in ${shownUrl(request.url, request.redactor)} any more: the tag or its branch was removed or overwritten.`,
  );
}

/** Two fetches into one mirror may meet at a ref's lock: the failure counts only if the commit is still missing after it. */
async function fetchAll(mirror: string, request: CheckoutRequest): Promise<Error | undefined> {
  try {
    await git(
      ['fetch', '--progress', '--', request.url, '+refs/heads/*:refs/heads/*', '+refs/tags/*:refs/tags/*'],
      request.url,
      {
        ...tellingOptions(request),
        directory: mirror,
      },
    );
    return undefined;
  } catch (error) {
    request.signal.throwIfAborted();
    return error instanceof Error ? error : new Error(String(error));
  }
}

async function hasCommit(commit: string, options: GitOptions): Promise<boolean> {
  const result = await runGit(['cat-file', '-e', `${commit}^{commit}`], options);
  return result.kind === 'exited' && result.code === 0;
}

/** Whoever is first decides; the others use his. */
async function publish(recordFile: string, record: CheckoutRecord): Promise<CheckoutRecord> {
  const own = `${recordFile}.${randomBytes(4).toString('hex')}`;
  await writeFile(own, JSON.stringify(record), { mode: 0o600 });
  try {
    await link(own, recordFile);
    return record;
  } catch (error) {
    const other = await readRecord(recordFile);
    if (other === undefined) throw error;
    return other;
  } finally {
    await rm(own, { force: true });
  }
}

async function readRecord(recordFile: string): Promise<CheckoutRecord | undefined> {
  try {
    const value = JSON.parse(await readFile(recordFile, 'utf8')) as Partial<CheckoutRecord>;
    return typeof value.directory === 'string' &&
      /^[0-9a-f-]+$/.test(value.directory) &&
      typeof value.untracked === 'string'
      ? { directory: value.directory, untracked: value.untracked }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Still the commit, no file of it changed, and no Python file added that Alembic could take for a revision. */
async function isIntact(directory: string, record: CheckoutRecord, request: CheckoutRequest): Promise<boolean> {
  if (!(await isDirectory(join(directory, '.git')))) return false;
  const head = await runGit(['rev-parse', 'HEAD'], { ...gitOptions(request), directory });
  if (head.kind !== 'exited' || head.code !== 0 || head.stdoutTail.trim() !== request.commit) return false;
  if ((await trackedChanges(directory, request)).length > 0) return false;
  return (await untrackedSources(directory, request)) === record.untracked;
}

async function trackedChanges(directory: string, request: CheckoutRequest): Promise<string[]> {
  const status = await git(['status', '--porcelain', '--untracked-files=no'], request.url, {
    ...gitOptions(request),
    directory,
  });
  return status.split('\n').flatMap((line) => (line.trim() === '' ? [] : [line.slice(3)]));
}

async function untrackedSources(directory: string, request: CheckoutRequest): Promise<string> {
  const listed = await git(['ls-files', '--others', '--exclude-standard', '--', '*.py'], request.url, {
    ...gitOptions(request),
    directory,
  });
  return digest(listed);
}

/** Folders of attempts that died, after a day. */
async function removeAbandoned(repository: string): Promise<void> {
  const names = await readdir(repository);
  const records = await Promise.all(
    names.filter((name) => name.endsWith('.json')).map((name) => readRecord(join(repository, name))),
  );
  const inUse = new Set(records.map((record) => record?.directory));
  const dayAgo = Date.now() - 24 * 60 * 60 * 1000;
  for (const name of names) {
    if (inUse.has(name) || !/^(?:[0-9a-f]{12}-[0-9a-f]{8}|mirror-[0-9a-f]{8}\.git)$/.test(name)) continue;
    const folder = await stat(join(repository, name)).catch(() => undefined);
    if (folder !== undefined && folder.mtimeMs < dayAgo)
      await rm(join(repository, name), { recursive: true, force: true });
  }
}

const gitOptions = ({ signal, redactor }: CheckoutRequest): GitOptions => ({ signal, redactor });

/** For the commands that take their time. */
const tellingOptions = ({ signal, redactor, progress }: CheckoutRequest): GitOptions => ({
  signal,
  redactor,
  ...(progress === undefined ? {} : { onLine: progress }),
});

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16);

const isDirectory = async (path: string): Promise<boolean> =>
  (await stat(path).catch(() => undefined))?.isDirectory() === true;

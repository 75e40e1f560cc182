/**
 * Builds the git repository of the example service from the folders beside this file: one commit and one annotated
 * tag for each release of releases.json, the same commit ids every time and everywhere.
 *
 *     node build-repository.ts TARGET
 *
 * `main` ends at the last release of the good line, every other release has a branch `release/<tag>`.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';

interface Release {
  readonly tag: string;
  /** Tag whose files this release starts from; the first release has none. */
  readonly parent?: string;
  /** Files added or replaced, relative to this file. */
  readonly folder: string;
  readonly summary: string;
}

export interface TaggedCommit {
  readonly tag: string;
  /** Id of the commit, not of the tag object. */
  readonly commit: string;
}

const SOURCES = import.meta.dirname;
const AUTHOR = 'Whisper Transcriber <whisper-transcriber@example.com>';
/** Of the first release, in seconds since 1970; each one after it is a day later. */
const FIRST_COMMIT = Date.UTC(2026, 0, 5, 9) / 1000;
const DAY = 86_400;
/** Left behind by running a release in place; never part of it. */
const NOT_SOURCES = new Set(['__pycache__', '.pytest_cache']);
/** Where the repository says what it was built from, and what came out. */
const BUILT_KEY = 'whisper-transcriber.built';

async function git(folder: string, commandArguments: readonly string[], input?: Buffer): Promise<string> {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('GIT_')));
  const child = spawn(
    'git',
    ['-c', 'init.defaultBranch=main', '-c', 'safe.directory=*', '-c', 'core.autocrlf=false', ...commandArguments],
    {
      cwd: folder,
      env: { ...environment, GIT_CONFIG_NOSYSTEM: '1', GIT_CONFIG_GLOBAL: '/dev/null', LC_ALL: 'C' },
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  // A git that fails early closes its input; the exit code below tells what happened.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const exitCode = await new Promise<number | null>((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  if (exitCode !== 0) {
    throw new Error(`git ${commandArguments[0]} exited with ${exitCode}: ${Buffer.concat(errors).toString().trim()}`);
  }
  return Buffer.concat(output).toString();
}

async function sourceFiles(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .filter((path) => !path.split('/').some((part) => NOT_SOURCES.has(part)))
    .sort();
}

const data = (content: Buffer | string): Buffer => {
  const bytes = Buffer.from(content);
  return Buffer.concat([Buffer.from(`data ${bytes.length}\n`), bytes, Buffer.from('\n')]);
};

/** The releases as a stream for `git fast-import`. */
async function importStream(releases: readonly Release[]): Promise<Buffer> {
  const parts: Buffer[] = [];
  const say = (line: string): void => {
    parts.push(Buffer.from(`${line}\n`));
  };
  const marks = new Map<string, number>();
  const lastOfMain = releases.findLast((release) => !release.tag.includes('-'))?.tag;

  for (const [index, { tag, parent, folder, summary }] of releases.entries()) {
    const parentMark = parent === undefined ? undefined : marks.get(parent);
    if (parent !== undefined && parentMark === undefined) {
      throw new Error(`releases.json: the parent ${parent} of ${tag} must come before it`);
    }
    const moment = `${AUTHOR} ${FIRST_COMMIT + index * DAY} +0000`;
    const mark = index + 1;
    marks.set(tag, mark);
    // A tag with a suffix is an alternative that main never took.
    say(`commit refs/heads/${tag.includes('-') ? `release/${tag}` : 'main'}`);
    say(`mark :${mark}`);
    say(`author ${moment}`);
    say(`committer ${moment}`);
    parts.push(data(`${tag}: ${summary}\n`));
    if (parentMark !== undefined) say(`from :${parentMark}`);
    for (const path of await sourceFiles(join(SOURCES, folder))) {
      say(`M 100644 inline ${path}`);
      parts.push(data(await readFile(join(SOURCES, folder, path))));
    }
    say(`tag ${tag}`);
    say(`from :${mark}`);
    say(`tagger ${moment}`);
    parts.push(data(`${summary}\n`));
  }
  if (lastOfMain === undefined) throw new Error('releases.json: no release for the branch main');
  say('done');
  return Buffer.concat(parts);
}

async function taggedCommits(repository: string): Promise<TaggedCommit[]> {
  const lines = await git(repository, [
    'for-each-ref',
    '--sort=*committerdate',
    '--format=%(refname:strip=2) %(*objectname)',
    'refs/tags',
  ]);
  return lines
    .trim()
    .split('\n')
    .map((line) => {
      const [tag = '', commit = ''] = line.split(' ');
      return { tag, commit };
    });
}

/** Sources and tags, so that a tag moved by hand counts as a difference. */
const description = (sources: string, commits: readonly TaggedCommit[]): string =>
  [sources, ...commits.map(({ tag, commit }) => `${tag}=${commit}`)].join(' ');

/** What a repository of ours says of itself; undefined where there is none, or not one of ours. */
async function recordedDescription(folder: string): Promise<string | undefined> {
  if (!existsSync(join(folder, '.git'))) return undefined;
  const value = await git(folder, ['config', '--local', '--default', '', '--get', BUILT_KEY]);
  return value.trim() || undefined;
}

/**
 * Makes `targetFolder` a git repository with a work tree at `main`. One built from the same sources is left as it is,
 * one built from others is replaced.
 *
 * @throws when the folder holds something else, which is then left alone.
 */
export async function buildRepository(targetFolder: string): Promise<TaggedCommit[]> {
  const target = resolve(targetFolder);
  const releases = JSON.parse(await readFile(join(SOURCES, 'releases.json'), 'utf8')) as readonly Release[];
  const stream = await importStream(releases);
  const sources = createHash('sha256').update(stream).digest('hex');

  const recorded = await recordedDescription(target);
  if (recorded !== undefined) {
    const commits = await taggedCommits(target);
    if (recorded === description(sources, commits)) return commits;
  } else if (existsSync(target) && (await readdir(target)).length > 0) {
    throw new Error(`${target} is neither empty nor a repository of this example: choose another folder`);
  }

  // Built aside and renamed, so that a repository is either whole or not there.
  const partial = `${target}.${process.pid}.partial`;
  await mkdir(dirname(target), { recursive: true });
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial);
  try {
    await git(partial, ['init', '--quiet', '--template=']);
    await git(partial, ['fast-import', '--quiet', '--done', '--date-format=raw'], stream);
    await git(partial, ['reset', '--quiet', '--hard', 'main']);
    const commits = await taggedCommits(partial);
    await git(partial, ['config', '--local', BUILT_KEY, description(sources, commits)]);
    await rm(target, { recursive: true, force: true });
    await rename(partial, target);
    return commits;
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const target = process.argv[2];
  if (target === undefined) {
    console.error('usage: node build-repository.ts TARGET');
    process.exitCode = 2;
  } else {
    for (const { tag, commit } of await buildRepository(target)) console.log(`${commit} ${tag}`);
  }
}

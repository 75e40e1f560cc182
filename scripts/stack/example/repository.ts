import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { buildRepository } from '../../../examples/whisper-transcriber/build-repository.ts';
import { runCommand } from '../command.ts';

export interface DeployedRelease {
  /** Git repository with all releases as tags. */
  readonly repository: string;
  /** Work tree of the release. */
  readonly checkout: string;
  readonly tag: string;
  readonly commit: string;
}

/** Builds the service's repository and checks the release out, each only where it is not there yet.
 * @throws Error for an unknown tag. */
export async function checkOut(directory: string, tag: string): Promise<DeployedRelease> {
  const repository = join(directory, 'repository');
  const commits = await buildRepository(repository);
  const commit = commits.find((release) => release.tag === tag)?.commit;
  if (commit === undefined)
    throw new Error(`the example has no release ${tag}; it has ${commits.map((release) => release.tag).join(', ')}`);
  const checkout = join(directory, 'deployed', tag);
  const git = (folder: string, ...words: readonly string[]): Promise<string> =>
    runCommand('git', words, { directory: folder });
  const present = existsSync(join(checkout, '.git')) ? (await git(checkout, 'rev-parse', 'HEAD')).trim() : undefined;
  if (present !== commit) {
    await rm(checkout, { recursive: true, force: true });
    await git(directory, '-c', 'advice.detachedHead=false', 'clone', '--quiet', '--branch', tag, repository, checkout);
  }
  return { repository, checkout, tag, commit };
}

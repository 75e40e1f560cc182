import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { git, requireUrl, shownUrl } from './git.ts';

export interface TagRequest {
  /** Address of the repository, as git understands it. */
  readonly url: string;
  readonly tag: string;
  /** What the tag was when it was reviewed: a tag that points elsewhere by now is refused. */
  readonly known?: string;
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}

/** A full object name. */
export const isCommit = (text: string): boolean => /^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(text);

/**
 * The commit a tag points to in the repository itself, not in a copy of it; through a tag object to the commit behind.
 * @throws StepError `StepRefused` where there is no such tag, it is a branch, or it has moved
 */
export async function resolveTag(request: TagRequest): Promise<string> {
  const url = requireUrl(request.url);
  const tag = requireTagName(request.tag);
  const where = shownUrl(url, request.redactor);
  const listing = await git(
    ['ls-remote', '--', url, `refs/tags/${tag}`, `refs/tags/${tag}^{}`, `refs/heads/${tag}`],
    url,
    request,
  );
  const found = new Map(
    listing.split('\n').flatMap((line): [string, string][] => {
      const [commit = '', ref = ''] = line.split('\t');
      return isCommit(commit) ? [[ref, commit]] : [];
    }),
  );
  // The peeled entry exists for tag objects only; a lightweight tag names the commit itself.
  const commit = found.get(`refs/tags/${tag}^{}`) ?? found.get(`refs/tags/${tag}`);
  if (commit === undefined) {
    const what = found.has(`refs/heads/${tag}`) ? `"${tag}" is a branch, not a tag,` : `There is no tag "${tag}"`;
    throw new StepError(STEP_ERRORS.refused, `${what} in ${where}: push the release's tag or correct releaseTag.`);
  }
  if (request.known !== undefined && request.known !== commit) {
    throw new StepError(
      STEP_ERRORS.refused,
      `The tag "${tag}" in ${where} has moved: it was ${request.known} when it was reviewed and is ${commit} now. Start a new run for what it is now, or move it back.`,
      { tag, reviewed: request.known, now: commit },
    );
  }
  return commit;
}

/**
 * The commit behind what somebody calls a release: a tag, or a commit by its full name or its first 7 or more digits. Short names
 * are looked for among the ends of branches and tags, which is all that a repository tells from outside.
 *
 * @throws StepError `StepRefused` where it is neither
 */
export async function resolveRelease({
  name,
  ...request
}: Omit<TagRequest, 'tag' | 'known'> & { readonly name: string }): Promise<string> {
  if (isCommit(name)) return name;
  if (!/^[0-9a-f]{7,}$/.test(name)) return resolveTag({ ...request, tag: name });
  const url = requireUrl(request.url);
  const listing = await git(['ls-remote', '--', url], url, request);
  const rows = listing.split('\n').map((line) => line.split('\t'));
  const tagged = rows.some(([, ref]) => ref === `refs/tags/${name}`);
  if (tagged) return resolveTag({ ...request, tag: name });
  const commits = new Set(
    rows.flatMap(([commit = '']) => (isCommit(commit) && commit.startsWith(name) ? [commit] : [])),
  );
  const [commit] = commits;
  if (commit !== undefined && commits.size === 1) return commit;
  throw new StepError(
    STEP_ERRORS.refused,
    `"${name}" is no tag of ${shownUrl(url, request.redactor)}, and ${commits.size === 0 ? 'no branch or tag ends at such a commit' : 'several commits begin with it'}: give the full name of the commit.`,
  );
}

/** By the rules of git-check-ref-format(1), so that the name is neither an option nor a pattern. @throws StepError `StepRefused` */
export function requireTagName(tag: string): string {
  const valid =
    tag.length <= 200 &&
    !/[\0-\x20\x7f~^:?*[\\]|\.\.|@\{|\/\/|\/\.|\.lock(?:\/|$)/.test(tag) &&
    !/^[-./]|[./]$/.test(tag) &&
    tag !== '' &&
    tag !== '@';
  if (!valid) throw new StepError(STEP_ERRORS.refused, `"${tag.slice(0, 80)}" is not a name for a git tag.`);
  return tag;
}

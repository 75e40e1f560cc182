/** GitHub REST API: "Commits", "Pull request reviews", "Check runs", "Commit statuses". */
import { z } from 'zod';
import type { ReviewProfile } from '../contract/profile.ts';
import type { IntegrationContext } from './context.ts';
import { getAll, getOne, type ProviderApi } from './provider-api.ts';
import type { ReviewedCommit, ReviewFacts } from './review-facts.ts';

const user = z.object({ login: z.string() }).nullable();
const commitForm = z.object({ sha: z.string() });
const pullsForm = z.array(z.object({ number: z.int(), merged_at: z.string().nullable(), user }));
const reviewsForm = z.array(z.object({ state: z.string(), user }));
const checkRunsForm = z.object({
  check_runs: z.array(z.object({ name: z.string(), status: z.string(), conclusion: z.string().nullable() })),
});
const statusForm = z.object({
  state: z.string(),
  total_count: z.int(),
  statuses: z.array(z.object({ context: z.string(), state: z.string() })),
});

type Github = ReviewProfile['source'] & { kind: 'github' };

export async function githubReview(
  { apiUrl, repository, token }: Github,
  { tag, commit }: ReviewedCommit,
  context: IntegrationContext,
): Promise<ReviewFacts> {
  const api: ProviderApi = {
    name: 'GitHub',
    base: apiUrl,
    headers: {
      authorization: `Bearer ${await context.secrets.resolve(token)}`,
      accept: 'application/vnd.github+json',
      'x-github-api-version': '2022-11-28',
    },
    signal: context.signal,
  };
  const path = `/repos/${repository}`;
  // "tags/NAME" cannot be mistaken for a branch of the same name.
  const named = await getOne(
    api,
    `${path}/commits/tags/${tag.split('/').map(encodeURIComponent).join('/')}`,
    commitForm,
  );
  const { reviewers, objections } = await pullRequestReviews(api, path, commit);
  const checks = await checksOf(api, path, commit);
  return { commit: named.sha, checks: checks.state, reviewers, objections: [...objections, ...checks.failed] };
}

/** Reviews of the merged pull requests the commit came by. Only the last word of each reviewer counts. */
async function pullRequestReviews(
  api: ProviderApi,
  path: string,
  commit: string,
): Promise<{ reviewers: string[]; objections: string[] }> {
  const pulls = (await getAll(api, `${path}/commits/${commit}/pulls?per_page=100`, pullsForm)).flat();
  const merged = pulls.filter((pull) => pull.merged_at !== null);
  const reviewers = new Set<string>();
  const objections: string[] = [];
  if (merged.length === 0) objections.push('no merged pull request holds this commit');
  for (const pull of merged) {
    const reviews = (await getAll(api, `${path}/pulls/${pull.number}/reviews?per_page=100`, reviewsForm)).flat();
    const last = new Map<string, string>();
    for (const review of reviews) {
      // A comment takes nothing back; a dismissal does.
      if (review.user !== null && review.state !== 'COMMENTED' && review.state !== 'PENDING') {
        last.set(review.user.login, review.state);
      }
    }
    for (const [login, state] of last) {
      if (state === 'APPROVED' && login !== pull.user?.login) reviewers.add(login);
      if (state === 'CHANGES_REQUESTED') objections.push(`${login} requested changes in pull request ${pull.number}`);
    }
  }
  return { reviewers: [...reviewers].toSorted(), objections };
}

const PASSED: ReadonlySet<string> = new Set(['success', 'neutral', 'skipped']);

async function checksOf(
  api: ProviderApi,
  path: string,
  commit: string,
): Promise<{ state: ReviewFacts['checks']; failed: string[] }> {
  const runs = (await getAll(api, `${path}/commits/${commit}/check-runs?per_page=100`, checkRunsForm)).flatMap(
    (page) => page.check_runs,
  );
  const status = await getOne(api, `${path}/commits/${commit}/status?per_page=100`, statusForm);
  const failed = [
    ...runs.filter((run) => run.status === 'completed' && !PASSED.has(run.conclusion ?? '')).map((run) => run.name),
    ...status.statuses.filter(({ state }) => state === 'failure' || state === 'error').map((entry) => entry.context),
  ];
  const pending =
    runs.some((run) => run.status !== 'completed') || (status.total_count > 0 && status.state === 'pending');
  // Runs that were all skipped have checked nothing.
  const ran =
    runs.some((run) => run.conclusion === 'success') || (status.total_count > 0 && status.state === 'success');
  const bad = failed.length > 0 || (status.total_count > 0 && !['success', 'pending'].includes(status.state));
  return {
    state: bad ? 'failure' : pending ? 'pending' : ran ? 'success' : 'none',
    failed: failed.length > 0 ? [`failed: ${failed.slice(0, 10).join(', ')}`] : [],
  };
}

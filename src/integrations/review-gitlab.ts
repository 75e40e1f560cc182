/** GitLab REST API v4: "Tags", "Commits", "Merge request approvals". */
import { z } from 'zod';
import type { ReviewProfile } from '../contract/profile.ts';
import type { IntegrationContext } from './context.ts';
import { getAll, getOne, type ProviderApi } from './provider-api.ts';
import type { ReviewedCommit, ReviewFacts } from './review-facts.ts';

const tagForm = z.object({ commit: z.object({ id: z.string() }) });
const commitForm = z.object({ last_pipeline: z.object({ status: z.string() }).nullish() });
const mergeRequestsForm = z.array(
  z.object({ iid: z.int(), state: z.string(), author: z.object({ username: z.string() }).nullish() }),
);
const approvalsForm = z.object({ approved_by: z.array(z.object({ user: z.object({ username: z.string() }) })) });

type Gitlab = ReviewProfile['source'] & { kind: 'gitlab' };

export async function gitlabReview(
  { apiUrl, project, token }: Gitlab,
  { tag, commit }: ReviewedCommit,
  context: IntegrationContext,
): Promise<ReviewFacts> {
  const api: ProviderApi = {
    name: 'GitLab',
    base: apiUrl,
    headers: { authorization: `Bearer ${await context.secrets.resolve(token)}` },
    signal: context.signal,
  };
  const path = `/projects/${encodeURIComponent(project)}`;
  const named = await getOne(api, `${path}/repository/tags/${encodeURIComponent(tag)}`, tagForm);
  const { last_pipeline: pipeline } = await getOne(api, `${path}/repository/commits/${commit}`, commitForm);
  const requests = (
    await getAll(api, `${path}/repository/commits/${commit}/merge_requests?per_page=100`, mergeRequestsForm)
  ).flat();
  const merged = requests.filter(({ state }) => state === 'merged');
  const reviewers = new Set<string>();
  for (const { iid, author } of merged) {
    const approvals = await getOne(api, `${path}/merge_requests/${iid}/approvals`, approvalsForm);
    for (const { user } of approvals.approved_by) if (user.username !== author?.username) reviewers.add(user.username);
  }
  return {
    commit: named.commit.id,
    checks: checksOf(pipeline?.status),
    reviewers: [...reviewers].toSorted(),
    objections: merged.length === 0 ? ['no merged merge request holds this commit'] : [],
  };
}

/** Pipeline states as the "Pipelines" page lists them. A skipped or cancelled pipeline has proven nothing. */
function checksOf(status: string | undefined): ReviewFacts['checks'] {
  switch (status) {
    case undefined:
    case 'skipped':
      return 'none';
    case 'success':
      return 'success';
    case 'failed':
    case 'canceled':
    case 'canceling':
      return 'failure';
    default:
      return 'pending';
  }
}

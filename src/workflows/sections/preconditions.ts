/** Section 1 of the document: preconditions. */
import { upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { AccessEvidence, ChangeReview } from '../../contract/evidence/preconditions.ts';
import { SEARCH_ATTRIBUTES } from '../../contract/search-attributes.ts';
import { takeLease } from '../lease.ts';
import { engage } from '../obligations.ts';
import type { MigrationRun } from '../run.ts';
import { LOOK, TELL } from '../step-policies.ts';
import { ownSteps } from './own-steps.ts';

export interface Preconditions {
  readonly review: ChangeReview;
  readonly access: AccessEvidence;
}

export async function preconditions(run: MigrationRun, findings: readonly string[]): Promise<Preconditions> {
  await acceptRequest(run, findings);

  const review = await run.step(
    'preconditions.change-review',
    'Release tag, review and CI state of its commit',
    LOOK,
    (activities) => activities.reviewChange(run.input()),
  );
  run.learn({ commit: review.commit });

  const access = await run.step(
    'preconditions.access',
    'Reach production, staging, scratch and bucket; rights; different databases',
    LOOK,
    (activities) => activities.inspectAccess(run.input()),
  );
  await takeLease(run, access.production);

  await run.step('preconditions.announce', 'Announce the maintenance window', TELL, (activities) =>
    activities.performActions({ ...run.input(), actions: run.profile.announce, message: windowAnnouncement(run) }),
  );
  await engage(run, 'preconditions.announce', ['notice']);

  await run.step('preconditions.monitoring', 'Every monitoring query answers', LOOK, (activities) =>
    activities.verifyMonitoring(run.input()),
  );
  await engage(run, 'preconditions.monitoring', ['silence']);

  await ownSteps(run, 'preconditions');
  return { review, access };
}

async function acceptRequest(run: MigrationRun, findings: readonly string[]): Promise<void> {
  const { request } = run;
  upsertSearchAttributes([
    { key: SEARCH_ATTRIBUTES.service, value: request.service },
    { key: SEARCH_ATTRIBUTES.release, value: request.releaseTag },
    { key: SEARCH_ATTRIBUTES.ticket, value: request.changeTicket },
  ]);
  const { workflowId, firstExecutionRunId: runId } = workflowInfo();
  const accepted = await run.step(
    'preconditions.request',
    'Validate the request, load the profile',
    LOOK,
    (activities) => activities.acceptRequest({ request, workflowId, runId, findings }),
  );
  run.accept(accepted);
  run.state.windowStart = request.windowStart;
  run.state.windowEnd = request.windowEnd;
  if (request.windowStart && request.windowEnd) {
    run.learn({ windowStart: request.windowStart, windowEnd: request.windowEnd });
  }
}

function windowAnnouncement(run: MigrationRun) {
  const { service, releaseTag, changeTicket, windowStart, windowEnd } = run.request;
  const when =
    windowStart && windowEnd
      ? `from ${windowStart} to ${windowEnd}`
      : `from its approval on, for ${Math.round(run.profile.window.length / 60_000)} minutes at most`;
  return {
    kind: 'window-announced' as const,
    title: `Planned maintenance of ${service}`,
    text: `The database of ${service} will be migrated to ${releaseTag} (${changeTicket}) ${when}.`,
    facts: { service, releaseTag, changeTicket, windowStart: windowStart ?? null, windowEnd: windowEnd ?? null },
  };
}

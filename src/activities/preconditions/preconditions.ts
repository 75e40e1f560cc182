import { Context } from '@temporalio/activity';
import type { PreconditionActivities } from '../../contract/activities.ts';
import type { AcceptedRequest, AcceptRequestInput } from '../../contract/evidence/preconditions.ts';
import { refusal, StepError } from '../../contract/errors.ts';
import { takeMeasures } from '../../integrations/monitor.ts';
import { confirmReview } from '../../integrations/review.ts';
import { type LoadedProfile, loadProfile } from '../../profile/load.ts';
import { windowFindings } from '../../profile/window-placeholders.ts';
import { resolveTag } from '../../repository/checkout.ts';
import { runStep } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { integrationContext } from '../integration-context.ts';
import { listEarlierRuns, unreconciledRuns } from './earlier-runs.ts';

type Offered = Pick<PreconditionActivities, 'acceptRequest' | 'reviewChange' | 'verifyMonitoring'>;

export function createPreconditionActivities(dependencies: ActivityDependencies): Offered {
  const { secrets } = dependencies;
  return {
    acceptRequest: (input) => runStep(secrets, ({ signal }) => acceptRequest(dependencies, input, signal)),

    reviewChange: (input) =>
      runStep(secrets, async (tools) => {
        const { run, profile } = input;
        const tag = run.releaseTag;
        const { signal } = tools;
        const commit = await resolveTag({ url: profile.repository.url, tag, signal, redactor: secrets.redactor });
        const context = integrationContext(dependencies, { ...input, run: { ...run, commit } }, tools);
        const { source, reviewers, checks } = await confirmReview(profile.review, { tag, commit }, context);
        return { commit, tag, source, reviewers, checks };
      }),

    verifyMonitoring: (input) =>
      runStep(secrets, async (tools) => {
        const context = integrationContext(dependencies, input, tools);
        const { measures, sampleEvery } = input.profile.monitoring;
        const { values } = await takeMeasures(measures, { every: sampleEvery, samples: 1 }, context);
        return { measures: values.map(({ name, value }) => ({ name, value })) };
      }),
  };
}

/** Everything that is wrong with a request, in one refusal. */
async function acceptRequest(
  { profilesDirectory, client }: ActivityDependencies,
  { request, workflowId, findings: given }: AcceptRequestInput,
  signal: AbortSignal,
): Promise<AcceptedRequest> {
  const findings = [...given];
  const loaded = await loadOrFindings(profilesDirectory, request.service, findings);
  if (loaded !== undefined) findings.push(...windowFindings(loaded.profile, request));
  const ownRunId = Context.current().info.workflowExecution?.runId;
  const earlier = await listEarlierRuns(client, workflowId, ownRunId, signal);
  findings.push(...(await unreconciledRuns(client, workflowId, earlier, request.reconciledRun)));
  if (loaded === undefined || findings.length > 0) throw refusal(findings);
  const [previous] = earlier;
  return {
    profile: loaded.profile,
    profileDigest: loaded.digest,
    ...(previous === undefined ? {} : { previousRun: previous }),
  };
}

async function loadOrFindings(
  directory: string,
  service: string,
  findings: string[],
): Promise<LoadedProfile | undefined> {
  try {
    return await loadProfile(directory, service);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    const named = error.details['findings'];
    findings.push(...(Array.isArray(named) ? named.map(String) : [error.message]));
    return undefined;
  }
}

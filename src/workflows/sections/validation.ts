/** Section 6 of the document: post-migration validation. */
import type { RehearsalTrial } from '../../contract/evidence/rehearsal.ts';
import { nextRuling } from '../gate.ts';
import { stepRefused } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { TRIAL } from '../step-policies.ts';
import { tell } from '../telling.ts';
import { type Before, once } from './apply.ts';
import type { Reviewed } from '../plan.ts';
import { ownSteps } from './own-steps.ts';

export async function validation(run: MigrationRun, { tooling, rehearsed }: Reviewed, before: Before): Promise<void> {
  await once(run, 'validation.monitoring', () =>
    run.step('validation.monitoring', 'Measures against the baseline', TRIAL, (activities) =>
      activities.compareMeasures({
        ...run.input(),
        measures: run.profile.monitoring.measures,
        baseline: before.baseline,
      }),
    ),
  );
  await once(run, 'validation.schema', () =>
    run.step('validation.schema', 'New elements exist; production changed as the rehearsal did', TRIAL, (activities) =>
      activities.validateSchema({
        ...run.input(),
        before: before.state,
        rehearsed: rehearsedChange(rehearsed.rehearsal.trial),
        graph: tooling.graph,
      }),
    ),
  );
  await ownSteps(run, 'validation');
  if (run.profile.qa.required) await once(run, 'gate.qa', () => qaGate(run));
}

const rehearsedChange = ({ mapBefore, mapAfter, imitated }: RehearsalTrial) => ({ mapBefore, mapAfter, imitated });

async function qaGate(run: MigrationRun): Promise<void> {
  const { qa, approvals } = run.profile;
  const until = Date.now() + qa.timeout;
  run.open(
    { gate: 'qa', planDigest: run.state.plan?.digest ?? '', until },
    { for: 'qa', gate: 'qa', until: new Date(until).toISOString() },
  );
  const title = `QA: ${run.request.service} ${run.request.releaseTag} is upgraded and waits for exploratory tests`;
  const message = (kind: 'gate-opened' | 'gate-reminder') => ({
    kind,
    title,
    text: `${title}. Approve or reject the gate qa until ${new Date(until).toISOString()}; without an answer: ${qa.onTimeout}.`,
    facts: { service: run.request.service, gate: 'qa', until: new Date(until).toISOString() },
  });
  const ruling = await nextRuling(run, {
    until,
    remindEvery: approvals.remindEvery,
    announce: async () => void (await tell(run, 'gate.qa/notify', approvals.notify, message('gate-opened'))),
    remind: async () => void (await tell(run, 'gate.qa/remind', approvals.notify, message('gate-reminder'))),
  });
  run.close();
  run.judge('gate.qa', 'Word of QA', () => {
    if (ruling === 'timed-out') {
      if (qa.onTimeout === 'recovery') throw stepRefused('QA did not answer in time');
      return { kept: 'QA did not answer in time; the profile says keep' };
    }
    if (ruling.kind === 'rejected') throw stepRefused(`rejected by QA (${ruling.by}): ${ruling.reason}`);
    return { by: ruling.by };
  });
}

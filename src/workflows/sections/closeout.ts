/** Section 8 of the document: closeout. */
import { upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { Announcement } from '../../contract/evidence/actions.ts';
import type { Outcome } from '../../contract/profile.ts';
import type { ReportSummary, RunReport } from '../../contract/report.ts';
import { SEARCH_ATTRIBUTES } from '../../contract/search-attributes.ts';
import { putBack } from '../obligations.ts';
import { rowsText } from '../recovery-options.ts';
import type { MigrationRun } from '../run.ts';
import { PUT_BACK } from '../step-policies.ts';
import { tell } from '../telling.ts';
import { findingsOf, summaryOf, verdictOf } from '../verdict.ts';
import { ownSteps } from './own-steps.ts';
import { decide } from './recovery-gate.ts';
import { unansweredSwapText } from './restore.ts';

/** Puts back what is owed, writes the record, and tells what the run ends with. */
export async function closeout(run: MigrationRun, wanted: Outcome): Promise<ReportSummary> {
  const outcome = await resume(run, wanted);
  run.state.outcome = outcome;
  run.learn({ outcome });
  run.enter('closeout');
  // Only now: a restore after the rollback leaves nothing to be said of its rows.
  run.state.openItems.push(...[rowsText(run.state.undoDoubt), unansweredSwapText(run)].filter((text) => text !== ''));
  await runOwnSteps(run);
  const summary = await record(run, outcome);
  run.enter('ended');
  upsertSearchAttributes([{ key: SEARCH_ATTRIBUTES.outcome, value: outcome }]);
  return summary;
}

/** What cannot be put back does not end the run: a person mends it and says `retry`, or takes over with `accept`. */
async function resume(run: MigrationRun, wanted: Outcome): Promise<Outcome> {
  for (;;) {
    run.enter('closeout');
    const open = await putBack(run, wanted);
    if (open.length === 0) return wanted;
    const action = await decide(run, `could not be put back: ${open.join(', ')}`, ['retry', 'accept']);
    if (action === 'accept') {
      run.state.openItems.push(...open.map((name) => `not put back: ${name}`));
      return 'handed-over';
    }
  }
}

async function runOwnSteps(run: MigrationRun): Promise<void> {
  if (!run.isAccepted) return;
  try {
    await ownSteps(run, 'closeout');
  } catch (error) {
    const trouble = run.troubleOf(error);
    run.state.openItems.push(
      trouble.kind === 'failure' ? `${trouble.step}: ${trouble.message}` : 'a closeout step of the profile failed',
    );
  }
}

/** The ticket names the archived report, and the archived report names what could not be delivered. */
async function record(run: MigrationRun, outcome: Outcome): Promise<ReportSummary> {
  if (!run.isAccepted) return summarize(run, outcome, null);
  let uri = await archive(run, outcome);
  const { ticket, retrospective } = run.profile;
  if ((await tell(run, 'closeout.record', ticket, outcomeMessage(run, outcome, uri))) === 'not-delivered') {
    run.state.openItems.push(`the outcome could not be written into the ticket ${run.request.changeTicket}`);
  }
  if (run.state.intervened) {
    const told = await tell(run, 'closeout.retrospective', retrospective, retrospectiveMessage(run, outcome, uri));
    if (told === 'not-delivered') run.state.openItems.push('the retrospective could not be scheduled');
  }
  uri = (await archive(run, outcome)) ?? uri;
  return summarize(run, outcome, uri);
}

async function archive(run: MigrationRun, outcome: Outcome): Promise<string | null> {
  try {
    const { json } = await run.step('closeout.record/report', 'Archive the report', PUT_BACK, (activities) =>
      activities.archiveReport({ ...run.input(), report: reportOf(run, outcome) }),
    );
    return json.uri;
  } catch (error) {
    run.troubleOf(error);
    run.state.openItems.push('the report could not be archived; the history of the workflow holds it');
    return null;
  }
}

const summarize = (run: MigrationRun, outcome: Outcome, uri: string | null): ReportSummary =>
  summaryOf(
    reportOf(run, outcome),
    uri,
    run.state.keptAside,
    outcome === 'succeeded' ? [] : findingsOf(run.state.trouble),
  );

function reportOf(run: MigrationRun, outcome: Outcome): RunReport {
  const { state, runFacts } = run;
  return {
    format: 'migration-runbook/report/1',
    service: runFacts.service,
    releaseTag: runFacts.releaseTag,
    commit: runFacts.commit ?? null,
    changeTicket: runFacts.changeTicket,
    requestedBy: runFacts.requestedBy,
    workflowId: runFacts.workflowId,
    runId: runFacts.runId,
    startedAt: workflowInfo().startTime.toISOString(),
    endedAt: new Date().toISOString(),
    outcome,
    verdict: verdictOf(outcome, state),
    trouble: findingsOf(state.trouble).join('; ') || null,
    plan: state.plan ?? null,
    backups: state.backups,
    wayBack: state.wayBack ?? null,
    timeline: state.timeline,
    decisions: state.decisions,
    obligations: state.obligations,
    refusals: { count: state.refusalCount, last: state.lastRefusals },
    openItems: state.openItems,
    intervened: state.intervened,
  };
}

const outcomeMessage = (run: MigrationRun, outcome: Outcome, uri: string | null): Announcement => ({
  kind: 'outcome-recorded',
  title: `Migration of ${run.request.service} to ${run.request.releaseTag}: ${outcome}`,
  text: [
    verdictOf(outcome, run.state),
    `Report: ${uri ?? 'could not be archived'}`,
    ...run.state.openItems.map((item) => `Open: ${item}`),
  ].join('\n'),
  facts: {
    service: run.request.service,
    releaseTag: run.request.releaseTag,
    changeTicket: run.request.changeTicket,
    outcome,
    report: uri,
    openItems: run.state.openItems,
  },
});

const retrospectiveMessage = (run: MigrationRun, outcome: Outcome, uri: string | null): Announcement => ({
  kind: 'retrospective-scheduled',
  title: `Retrospective: migration of ${run.request.service} to ${run.request.releaseTag} (${outcome})`,
  text: `A person had to intervene. ${verdictOf(outcome, run.state)} Report: ${uri ?? 'see the workflow'}`,
  facts: {
    service: run.request.service,
    changeTicket: run.request.changeTicket,
    outcome,
    report: uri,
    decisions: run.state.decisions.map(({ at, by, what }) => `${at} ${by}: ${what}`),
  },
});

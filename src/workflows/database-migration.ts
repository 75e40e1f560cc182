import {
  allHandlersFinished,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
} from '@temporalio/workflow';
import { ENDING_ERRORS } from '../contract/errors.ts';
import type { ToolingEvidence } from '../contract/evidence/tooling.ts';
import type { Outcome } from '../contract/profile.ts';
import type { ReportSummary } from '../contract/report.ts';
import { type MigrationRequest, parseRequest } from '../contract/request.ts';
import { handleMessages } from './message-handlers.ts';
import { type Reviewed, toolVersions } from './plan.ts';
import { MigrationRun } from './run.ts';
import type { Trouble } from './run-state.ts';
import { type Before, prepareProduction, smoke, upgrade } from './sections/apply.ts';
import { productionGate } from './sections/approval.ts';
import { backup } from './sections/backup.ts';
import { closeout } from './sections/closeout.ts';
import { dryRun } from './sections/dry-run.ts';
import { preconditions } from './sections/preconditions.ts';
import { recover } from './sections/recovery.ts';
import { asSeen, expiryOf, rehearse } from './sections/rehearsal.ts';
import { tooling, verifyTools } from './sections/tooling.ts';
import { validation } from './sections/validation.ts';
import { awaitWindow } from './sections/window.ts';
import { refuseRequest, startFindings } from './start.ts';

/**
 * The runbook. Read it beside the document: sections 1 to 4, the approval, section 5 in two halves around the point of no
 * return, section 6; section 7 when something went wrong; section 8 always.
 *
 * @throws ApplicationFailure `MigrationAborted`, `MigrationRolledBack`, `MigrationRestored` or `MigrationHandedOver`, with
 *   the report's summary as details
 */
export async function databaseMigration(...args: unknown[]): Promise<ReportSummary> {
  const parsed = parseRequest(args, Date.now());
  if (parsed.kind === 'invalid') throw refuseRequest(args, parsed.findings);
  const run = new MigrationRun(parsed.request);
  handleMessages(run);

  const cancelled = abortOnCancel(run);
  const summary = await CancellationScope.nonCancellable(async () => {
    const end = await walk(run, parsed.request);
    // Whoever has sent a message that is being judged gets an answer.
    await condition(allHandlersFinished);
    return end;
  });
  return end(summary, cancelled() && isAsBefore(run));
}

async function walk(run: MigrationRun, request: MigrationRequest): Promise<ReportSummary> {
  let reviewed: Reviewed | undefined;
  let before: Before | undefined;

  const trouble = await run.forward(async () => {
    const { review, access } = await preconditions(run, startFindings(request));
    const tools = await tooling(run);
    await backup(run);
    const dry = await dryRun(run, tools.graph, access.production);
    const rehearsed = await rehearse(run, tools.graph);
    reviewed = await approved(run, { review, access, tooling: asSeen(tools, rehearsed), dryRun: dry, rehearsed });
    before = await prepareProduction(run, reviewed);
  });
  if (trouble || !reviewed || !before) {
    run.state.trouble = trouble;
    return closeout(run, 'aborted');
  }
  return closeout(run, await changeProduction(run, reviewed, before));
}

/**
 * The plan is approved, the window is open, and what was rehearsed still holds. Where it does not, approvals are void: a
 * fresh backup is rehearsed and the gate opens anew.
 */
async function approved(run: MigrationRun, first: Reviewed): Promise<Reviewed> {
  let reviewed = first;
  for (;;) {
    if ((await productionGate(run, reviewed)) === 'approved') {
      await awaitWindow(run);
      const expired = await expiryOf(run, reviewed.rehearsed, reviewed.review.commit);
      const tools = await verifyTools(run, 'apply.window/tools');
      const changed = changedTools(reviewed.tooling.tools, tools);
      if (expired.length + changed.length === 0) return reviewed;
      reviewed = { ...reviewed, tooling: { ...reviewed.tooling, tools } };
      run.refuse(
        'approve',
        `the approvals are void, the rehearsal does not hold any more: ${[...expired, ...changed].join('; ')}`,
      );
    }
    await backup(run);
    const rehearsed = await rehearse(run, reviewed.tooling.graph);
    reviewed = { ...reviewed, rehearsed, tooling: asSeen(reviewed.tooling, rehearsed) };
  }
}

function changedTools(approved: ToolingEvidence, now: ToolingEvidence): readonly string[] {
  const [before, after] = [toolVersions(approved), toolVersions(now)];
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((name) => before[name] !== after[name])
    .map(
      (name) =>
        `${name} is ${after[name] ?? 'not there'} on this worker, rehearsed was ${before[name] ?? 'without it'}`,
    );
}

/** From here on nothing ends by itself: success, an undo that is proven, or a person's decision. */
async function changeProduction(run: MigrationRun, reviewed: Reviewed, before: Before): Promise<Outcome> {
  let from: 'upgrade' | 'checks' = 'upgrade';
  for (;;) {
    const trouble = await attempt(run, from, reviewed, before);
    if (!trouble) return 'succeeded';
    const way = await recover(run, trouble, reviewed, before);
    if (way.kind === 'ended') return way.outcome;
    run.state.trouble = undefined;
    from = way.from;
    // Who decides to go on after the point of no return is on record for one more window's length.
    if ((run.state.upgradeUntil ?? 0) <= Date.now()) run.state.upgradeUntil = Date.now() + run.profile.window.length;
  }
}

async function attempt(
  run: MigrationRun,
  from: 'upgrade' | 'checks',
  reviewed: Reviewed,
  before: Before,
): Promise<Trouble | undefined> {
  if (from === 'upgrade') {
    run.enter('upgrade');
    const trouble = await run.forward(() => upgrade(run, reviewed, before));
    if (trouble) return trouble;
  }
  run.enter('validation');
  return run.forward(async () => {
    await smoke(run);
    await validation(run, reviewed, before);
  });
}

/** A cancel of the workflow is an abort: same table, same undo. */
function abortOnCancel(run: MigrationRun): () => boolean {
  let cancelled = false;
  CancellationScope.current().cancelRequested.catch(() => {
    cancelled = true;
    run.receiveCancel();
  });
  return () => cancelled;
}

/** As far as a run proves it: what a rollback is known to have lost, or of whose rows nobody can tell, is not. */
const isAsBefore = ({ state: { undoDoubt } }: MigrationRun): boolean =>
  undoDoubt === undefined || undoDoubt.rows === 'equal';

/**
 * Closed set of endings.
 *
 * @param asCancelled it was cancelled, and production is proven to be as before: `Cancelled`
 */
function end(summary: ReportSummary, asCancelled: boolean): ReportSummary {
  const { outcome } = summary;
  if (outcome === 'succeeded') return summary;
  if (asCancelled && (outcome === 'aborted' || outcome === 'rolled-back')) throw new CancelledFailure(summary.verdict);
  throw ApplicationFailure.nonRetryable(summary.verdict, ENDING_ERRORS[outcome], summary);
}

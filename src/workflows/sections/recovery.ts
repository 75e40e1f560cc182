/** Section 7 of the document: rollback and restoration. */
import type { Announcement } from '../../contract/evidence/actions.ts';
import type { Evaluation } from '../../contract/evidence/rollback.ts';
import { RETRIES } from '../bounds.ts';
import { messageCommands } from '../../contract/commands.ts';
import type { RecoveryAction } from '../../contract/messages.ts';
import type { Outcome } from '../../contract/profile.ts';
import { nextRuling } from '../gate.ts';
import { lowerFence } from '../obligations.ts';
import { verdictText } from '../../contract/rehearsal-text.ts';
import { rollbackOfferOf } from '../plan.ts';
import {
  arrivalsText,
  judge,
  realityText,
  retryFrom,
  retryText,
  type Situation,
  wayBackText,
} from '../recovery-options.ts';
import type { MigrationRun } from '../run.ts';
import { type Trouble, troubleText } from '../run-state.ts';
import { CHANGE, EXPORT, LOOK, PUT_BACK, TRIAL } from '../step-policies.ts';
import { tell } from '../telling.ts';
import { type Before, writersText } from './apply.ts';
import type { Reviewed } from '../plan.ts';
import { ownSteps } from './own-steps.ts';
import { estimateWayBack, restore } from './restore.ts';

/** How the run goes on after trouble. */
export type WayOn =
  | { readonly kind: 'ended'; readonly outcome: Outcome }
  | { readonly kind: 'again'; readonly from: 'upgrade' | 'checks' };

/**
 * Reads what production really is, decides from that, and undoes. Ends only with production proven unchanged, rolled back
 * or restored, or by a person's decision.
 */
export async function recover(run: MigrationRun, first: Trouble, reviewed: Reviewed, before: Before): Promise<WayOn> {
  const { tried } = run.state;
  let trouble = first;
  // What went wrong first stays the headline; a recovery that failed on the way stands in the timeline and at the gate.
  run.state.trouble = first;
  for (;;) {
    run.enter('recovery');
    const evaluation = await evaluate(run, reviewed, before);
    await proveFenceStillHeld(run, reviewed, evaluation);
    await countArrivals(run, reviewed, before, evaluation);
    const situation = situationOf(run, reviewed, trouble, evaluation, tried);
    const verdict = judge(situation);
    if (verdict.kind === 'nothing-to-undo') return recovered(run, 'aborted');
    if (verdict.kind === 'undone') return recovered(run, 'rolled-back');

    if (verdict.kind === 'ask' && verdict.actions.includes('restore')) await estimateWayBack(run, before);
    const action = verdict.kind === 'automatic' ? verdict.action : await askPerson(run, situation, verdict.actions);
    run.enter('recovery');
    switch (action) {
      case 'accept':
        return { kind: 'ended', outcome: 'handed-over' };
      case 'retry':
        return { kind: 'again', from: retryFrom(situation.reality) };
      case 'continue':
        if (trouble.kind === 'failure') run.state.overrule(trouble.step);
        return { kind: 'again', from: 'checks' };
      case 'rollback':
      case 'restore': {
        run.state.forgetChecks();
        const failed = await attempt(
          run,
          action === 'rollback' ? () => rollBack(run, reviewed, before) : () => restore(run, before),
        );
        if (!failed) return recovered(run, action === 'rollback' ? 'rolled-back' : 'restored');
        tried.push(action);
        trouble = failed;
      }
    }
  }
}

/** Undefined when production cannot be read: then only a person can say what to do. */
async function evaluate(run: MigrationRun, { tooling }: Reviewed, before: Before): Promise<Evaluation | undefined> {
  try {
    return await run.step('recovery.evaluate', 'What production really is now', PUT_BACK, (activities) =>
      activities.evaluateProduction({ ...run.input(), graph: tooling.graph, before: before.state }),
    );
  } catch (error) {
    run.troubleOf(error);
    return undefined;
  }
}

/**
 * A fence holds well-behaved clients. Before anything is taken back without asking, or said to take back no row of the users',
 * the counters tell again whether only the migration has written. Unknown is not held.
 */
async function proveFenceStillHeld(
  run: MigrationRun,
  { rehearsed: { rehearsal } }: Reviewed,
  evaluation: Evaluation | undefined,
): Promise<void> {
  const { fence } = run.state;
  const kind = evaluation?.reality.kind;
  if (fence === undefined || kind === 'unchanged') return;
  run.state.fenceDoubt = 'whether somebody wrote behind the fence could not be found out';
  if (kind === undefined) return;
  try {
    const { held, written, unknown } = await run.step(
      'recovery.fence-held',
      'Only the migration wrote behind the fence',
      LOOK,
      (activities) => activities.proveFenceHeld({ ...run.input(), fence, footprint: rehearsal.trial.upgrade.document }),
    );
    run.state.fenceDoubt = held ? undefined : writersText(written, unknown);
  } catch (error) {
    run.troubleOf(error);
  }
}

/** What came into objects that a rollback would drop is counted, and exported, before anybody decides. */
async function countArrivals(
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  before: Before,
  evaluation: Evaluation | undefined,
): Promise<void> {
  run.state.arrivals = undefined;
  const kind = evaluation?.reality.kind;
  if (kind !== 'fully-applied' && kind !== 'partly-applied') return;
  if (rollbackOfferOf(run, rehearsal) === 'not-offered' || tooling.graph.downgrade.kind !== 'planned') return;
  const { provenFence: fence } = run.state;
  if (fence !== undefined) {
    run.state.arrivals = run.judge('recovery.arrivals', 'Nothing of the users’ can have come: the fence is up', () => ({
      objects: [],
      total: 0,
      archive: null,
      unknown: [],
      unseen: [],
      fencedSince: fence.since,
    }));
    return;
  }
  try {
    run.state.arrivals = await run.step(
      'recovery.arrivals',
      'What came into objects that the downgrade drops, counted and exported',
      EXPORT,
      (activities) =>
        activities.countArrivals({
          ...run.input(),
          graph: tooling.graph,
          before: before.state,
          dropped: rehearsal.trial.dropped,
        }),
    );
  } catch (error) {
    run.troubleOf(error);
  }
}

const situationOf = (
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  trouble: Trouble,
  evaluation: Evaluation | undefined,
  tried: readonly ('rollback' | 'restore')[],
): Situation => ({
  reality: evaluation?.reality,
  trouble,
  rollbackPolicy: run.profile.recovery.rollback,
  downgradePlanned: tooling.graph.downgrade.kind === 'planned',
  rollbackOffer: rollbackOfferOf(run, rehearsal),
  arrivals: arrivalsOf(run),
  backupVerified: run.state.latestBackup !== undefined,
  isFenced: run.state.provenFence !== undefined,
  restore:
    run.profile.recovery.restore === 'automatic' && run.state.provenFence !== undefined && run.state.isBackupBehindFence
      ? 'automatic'
      : 'ask',
  tried,
});

function arrivalsOf({ state: { arrivals } }: MigrationRun): Situation['arrivals'] {
  if (arrivals === undefined || arrivals.unknown.length + arrivals.unseen.length > 0) return 'unknown';
  return arrivals.total > 0 ? 'some' : 'none';
}

async function attempt(run: MigrationRun, work: () => Promise<void>): Promise<Trouble | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return run.troubleOf(error);
  }
}

async function rollBack(
  run: MigrationRun,
  { tooling, rehearsed: { rehearsal } }: Reviewed,
  before: Before,
): Promise<void> {
  const { verdict } = rehearsal.trial;
  const expectedLeftovers = verdict.kind === 'lossy' || verdict.kind === 'leftovers' ? verdict.objects : [];
  const { arrivals, provenFence: fence } = run.state;
  const { uncounted } = await run.step('recovery.rollback', 'The planned Alembic downgrade', CHANGE, (activities) =>
    activities.rollBackProduction({
      ...run.input(),
      graph: tooling.graph,
      before: before.state,
      expectedLeftovers,
      dropped: rehearsal.trial.dropped,
      arrivals: fence === undefined ? (arrivals?.objects ?? []) : null,
    }),
  );
  if (uncounted) run.state.openItems.push(`the rollback may have dropped rows that nobody counted: ${uncounted}`);
  run.state.openItems.push(...rolledBackTexts(run));
}

/** What a person accepted at the gate is still to be looked after when the run has ended. */
function rolledBackTexts({ state: { arrivals, rehearsal, latestBackup } }: MigrationRun): readonly string[] {
  const verdict = rehearsal?.trial.verdict;
  return [
    ...(verdict?.kind === 'lossy'
      ? [
          `the rehearsal found the rollback ${verdictText(verdict)}: production lost it as far as the upgrade had come, and what was written there after the backup too, uncounted; the last backup (${latestBackup?.uri ?? 'none'}) has what was there at ${latestBackup?.capturedAt ?? 'no time'}`,
        ]
      : []),
    ...(arrivals !== undefined && arrivals.unseen.length > 0
      ? [
          `rows changed or deleted in place since the upgrade show in no count, and the rollback dropped them: ${arrivals.unseen.slice(0, 10).join(', ')}${arrivals.archive === null ? '' : `; what was there is in ${arrivals.archive.uri}`}`,
        ]
      : []),
    ...(arrivals !== undefined && arrivals.total > 0
      ? [
          `what came into that which the rollback dropped waits to be looked at: ${arrivals.total} ${arrivals.archive === null ? 'rows or values, not exported' : `rows or values, exported to ${arrivals.archive.uri}`}`,
        ]
      : []),
  ];
}

/** Smoke again, tell the stakeholders. A failing smoke test after an undo is once more for a person to judge. */
async function recovered(run: MigrationRun, outcome: Outcome): Promise<WayOn> {
  for (;;) {
    const failed = await attempt(run, () => smokeAgain(run));
    if (!failed) break;
    const action = await decide(run, `after the undo (${outcome}) ${troubleText(failed)}`, [
      'retry',
      'continue',
      'accept',
    ]);
    run.enter('recovery');
    if (action === 'accept') {
      run.state.openItems.push(`production is ${outcome} and a check after it still fails: ${troubleText(failed)}`);
      await inform(run, 'handed-over');
      return { kind: 'ended', outcome: 'handed-over' };
    }
    if (action === 'continue') {
      if (failed.kind === 'failure') run.state.overrule(failed.step);
      break;
    }
  }
  await inform(run, outcome);
  return { kind: 'ended', outcome };
}

/** What only reads, then the fence down where it is still up, then what writes. */
async function smokeAgain(run: MigrationRun): Promise<void> {
  const { smoke, smokeWrites } = run.profile.checks;
  await run.step('recovery.smoke', 'Smoke tests again', TRIAL, (activities) =>
    activities.runChecks({ ...run.input(), checks: smoke }),
  );
  await lowerFence(run, 'recovery.open');
  await run.step('recovery.smoke-writes', 'Smoke tests that write, again', TRIAL, (activities) =>
    activities.runChecks({ ...run.input(), checks: smokeWrites }),
  );
  await ownSteps(run, 'recovery');
}

async function inform(run: MigrationRun, outcome: Outcome): Promise<void> {
  const { service, releaseTag, changeTicket } = run.request;
  const why = run.state.trouble ? troubleText(run.state.trouble) : '';
  const told = await tell(run, 'recovery.inform', run.profile.stakeholders, {
    kind: 'stakeholders-informed',
    title: `Migration of ${service} to ${releaseTag}: ${outcome}`,
    text: `The migration of ${service} to ${releaseTag} (${changeTicket}) ended as ${outcome}. ${why}`,
    facts: { service, releaseTag, changeTicket, outcome, why },
  });
  if (told === 'not-delivered') run.state.openItems.push('the stakeholders could not be told');
}

async function askPerson(
  run: MigrationRun,
  situation: Situation,
  actions: readonly RecoveryAction[],
): Promise<RecoveryAction> {
  const { wayBack, arrivals, fence, fenceDoubt } = run.state;
  const facts = [
    troubleText(situation.trouble),
    realityText(situation.reality),
    actions.includes('retry') ? retryText(situation.reality) : '',
    fence === undefined ? '' : (fenceDoubt ?? ''),
    actions.includes('rollback') ? arrivalsText(arrivals) : '',
    actions.includes('rollback') ? rehearsedText(run) : '',
    actions.includes('restore') ? wayBackText(wayBack) : '',
  ];
  return decide(run, facts.filter((fact) => fact !== '').join('; '), actions);
}

function rehearsedText({ state: { rehearsal } }: MigrationRun): string {
  const verdict = rehearsal?.trial.verdict;
  return verdict === undefined || verdict.kind === 'lossless'
    ? ''
    : `the rehearsal found the rollback ${verdictText(verdict)}`;
}

/**
 * The gate `recovery`: open until a person decides, with reminders, from the second one on to whom the profile escalates.
 */
export async function decide(
  run: MigrationRun,
  trouble: string,
  possible: readonly RecoveryAction[],
): Promise<RecoveryAction> {
  const { approvals, recovery } = run.profile;
  const isOver = run.state.retries >= RETRIES;
  const actions = isOver ? possible.filter((action) => action !== 'retry' && action !== 'continue') : possible;
  const why = isOver
    ? `${trouble}; "retry" and "continue" were chosen ${RETRIES} times: a run is not repeated for ever, take over with "accept"`
    : trouble;
  run.enter('gate-recovery');
  run.open({ gate: 'recovery', actions }, { for: 'recovery', gate: 'recovery', actions, why });
  const ruling = await nextRuling(run, {
    remindEvery: recovery.remindEvery,
    announce: async () => {
      await tell(run, 'gate.recovery/notify', approvals.notify, recoveryMessage(run, why, actions, 'gate-opened'));
    },
    remind: async (count) => {
      await tell(run, 'gate.recovery/remind', approvals.notify, recoveryMessage(run, why, actions, 'gate-reminder'));
      if (count > 1) {
        await tell(
          run,
          'gate.recovery/escalate',
          recovery.escalate,
          recoveryMessage(run, why, actions, 'gate-escalation'),
        );
      }
    },
  });
  run.close();
  if (ruling === 'timed-out' || ruling.kind !== 'recover') throw new Error('the gate recovery takes only recover');
  run.state.intervened = true;
  if (ruling.action === 'retry' || ruling.action === 'continue') run.state.retries += 1;
  return ruling.action;
}

function recoveryMessage(
  run: MigrationRun,
  why: string,
  actions: readonly RecoveryAction[],
  kind: 'gate-opened' | 'gate-reminder' | 'gate-escalation',
): Announcement {
  const { service, releaseTag, changeTicket } = run.request;
  const commands = actions.map((action) =>
    messageCommands(service, 'recover', { by: 'you@example.com', action, reason: 'why' }),
  );
  return {
    kind,
    title: `A person must decide: ${service} ${releaseTag}`,
    text: [
      why,
      `Possible: ${actions.join(', ')}.`,
      ...commands.map(({ runbook }) => runbook),
      commands[0]?.temporal ?? '',
      commands[0]?.tctl ?? '',
    ].join('\n'),
    facts: { service, releaseTag, changeTicket, why, actions, wayBack: { ...run.state.wayBack?.total } },
  };
}

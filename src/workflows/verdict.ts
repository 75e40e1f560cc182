import type { Outcome } from '../contract/profile.ts';
import { rollbackOffer } from '../contract/rehearsal-offer.ts';
import type { ReportSummary, RunReport } from '../contract/report.ts';
import { type RunState, type Trouble, troubleText } from './run-state.ts';

/** One sentence for the ticket: what happened to production, and how it is known. */
export function verdictOf(outcome: Outcome, state: RunState): string {
  const why = state.trouble ? ` (${troubleText(state.trouble)})` : '';
  const revisions = state.plan ? `${state.plan.plan.startRevisions.join(', ') || 'no revision'}` : 'its revision';
  switch (outcome) {
    case 'succeeded':
      return `Applied: production is at ${state.plan?.plan.targetRevision ?? 'the target'}; ${checkedText(state)}.`;
    case 'aborted':
      return `Aborted${why}: production is unchanged.`;
    case 'rolled-back':
      return `Rolled back${why}: production is at ${revisions} again ${state.undoDoubt?.undo === 'by-others' ? 'by others than this run' : 'by the planned downgrade'}, ${rolledBackText(state)}.`;
    case 'restored':
      return `Restored${why}: production is the backup ${state.latestBackup?.uri ?? ''}, compared with its ledger; the replaced database is kept as ${state.keptAside ?? 'unknown'}.`;
    case 'handed-over':
      return `Handed over to people${why}: production is as reported; see what is open.`;
  }
}

function checkedText({ overruled }: RunState): string {
  return overruled.length === 0
    ? 'smoke tests and validation passed'
    : `smoke tests and validation passed, but for what failed and was overruled by a person: ${overruled.slice(0, 10).join(', ')}`;
}

function rolledBackText({ rehearsal, undoDoubt }: RunState): string {
  const left = rehearsal === undefined ? [] : rollbackOffer(rehearsal.trial.verdict).loses;
  return left.length === 0
    ? `objects equal to before${undoDoubt === undefined ? '' : undoDoubt.rows === 'equal' ? ', rows equal to the backup' : ', rows not proven to be'}`
    : `objects differ from before by no more than what the rehearsal of the whole upgrade found this to lose or leave: ${left.slice(0, 10).join(', ')}`;
}

export function findingsOf(trouble: Trouble | undefined): readonly string[] {
  if (!trouble) return [];
  return trouble.kind === 'failure' && trouble.findings.length > 0 ? trouble.findings : [troubleText(trouble)];
}

export const summaryOf = (
  report: RunReport,
  uri: string | null,
  keptAside: string | undefined,
  findings: readonly string[],
): ReportSummary => ({
  outcome: report.outcome,
  verdict: report.verdict.slice(0, 4000),
  service: report.service,
  releaseTag: report.releaseTag,
  changeTicket: report.changeTicket,
  planDigest: report.plan?.digest ?? null,
  backup: report.backups.at(-1)?.uri ?? null,
  keptAside: keptAside ?? null,
  openItems: report.openItems.slice(0, 50).map((item) => item.slice(0, 500)),
  findings: findings.slice(0, 50).map((finding) => finding.slice(0, 1000)),
  report: uri,
});

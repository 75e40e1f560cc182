/** What production is when the run is over, from the evidence: what whoever opens a report at night looks for first. Pure. */
import type { RunReport } from '../contract/report.ts';
import type { Obligation, StepRecord } from '../contract/status.ts';
import { timeText } from './quantity.ts';

export type Fact = readonly [name: string, text: string];

export function productionNow(report: RunReport): readonly Fact[] {
  const { plan, backups, obligations } = report;
  const database = plan?.plan.production.database ?? backups.at(-1)?.database.database;
  return [
    [
      'Production now',
      `${database === undefined ? '' : `database ${database}, `}${stateText(report)}${fenceText(obligations)}`,
    ],
    ...(obligations.length === 0 ? [] : [['Switched by the run', switchesText(obligations)] as const]),
  ];
}

function stateText(report: RunReport): string {
  const { outcome, plan, timeline } = report;
  const before = plan?.plan.startRevisions.join(', ') || undefined;
  switch (outcome) {
    case 'succeeded':
      return `at ${plan?.plan.targetRevision ?? 'the target'}`;
    case 'aborted':
      return before === undefined ? 'unchanged' : `unchanged, at ${before}`;
    case 'rolled-back':
      return `${lastReading(timeline, 'recovery.rollback') ?? lastReading(timeline) ?? (before === undefined ? 'as before' : `at ${before} again`)}${rowsText(timeline)}`;
    case 'restored':
      return (
        lastReading(timeline, 'recovery.restore/swap') ??
        lastReading(timeline) ??
        (before === undefined ? 'as before' : `at ${before} again`)
      );
    case 'handed-over':
      return `${lastReading(timeline) ?? 'as the steps below left it: it was not read after them'}${rowsText(timeline)}`;
  }
}

/** What the last step that read or wrote production in recovery found. */
function lastReading(timeline: readonly StepRecord[], by?: string): string | undefined {
  for (const step of timeline.toReversed()) {
    const isWanted = step.status === 'done' && (by === undefined || idOf(step) === by);
    const text = isWanted ? readingOf(step) : undefined;
    if (text !== undefined) return text;
  }
  return undefined;
}

/** Without the number of its repetition. */
const idOf = ({ id }: StepRecord): string => id.replace(/#\d+$/, '');

function readingOf(step: StepRecord): string | undefined {
  const { evidence, startedAt, endedAt } = step;
  const rows = strings(field(evidence, 'versionRows')).join(', ') || 'no revision';
  switch (idOf(step)) {
    case 'recovery.rollback':
      return `back at ${rows}${field(evidence, 'objects') === 'equal' ? ', its objects equal to before' : ', see the step for what is left'}${reorderedText(strings(field(evidence, 'reordered')))}`;
    case 'recovery.restore/swap': {
      const until = field(evidence, 'quarantineUntil');
      return `the restored backup, at ${rows}; the replaced database is kept as ${String(field(evidence, 'keptAside'))}${typeof until === 'string' ? ` until ${timeText(until)}` : ''}`;
    }
    case 'recovery.evaluate':
      return `${realityText(field(evidence, 'reality'))}, version table at ${rows}, as read at ${timeText(endedAt ?? startedAt)}`;
    default:
      return undefined;
  }
}

/** Only where the rows were compared: the undo of a part of what was rehearsed, behind the fence. */
function rowsText(timeline: readonly StepRecord[]): string {
  const compared = timeline.findLast((step) => idOf(step) === 'recovery.rollback/rows' && step.status === 'done');
  if (compared === undefined) return '';
  if (strings(field(compared.evidence, 'findings')).length > 0)
    return '; ROWS ARE NOT those of the backup, see the step';
  const samples = Number(field(compared.evidence, 'samples'));
  return `; rows equal to the backup's${samples > 0 ? ` (of ${samples} large table(s) a sample)` : ''}`;
}

const reorderedText = (tables: readonly string[]): string =>
  tables.length === 0
    ? ''
    : `; columns of ${tables.length} table(s) stand in another order (${tables.slice(0, 3).join('; ')})`;

function realityText(reality: unknown): string {
  const kind = field(reality, 'kind');
  const why = field(reality, 'why');
  switch (kind) {
    case 'unchanged':
      return 'unchanged';
    case 'fully-applied':
      return 'upgraded in full';
    case 'partly-applied':
      return `upgraded in part (${strings(field(reality, 'revisions')).join(', ') || 'no revision in full'})`;
    default:
      return `changed by somebody else${typeof why === 'string' ? `: ${why}` : ''}`;
  }
}

function fenceText(obligations: readonly Obligation[]): string {
  const fence = obligations.findLast(({ kind }) => kind === 'fence');
  if (fence === undefined) return '';
  return fence.status === 'released' ? '; open for writes' : '; STILL READ-ONLY: the fence is up';
}

function switchesText(obligations: readonly Obligation[]): string {
  const named = (wanted: (status: Obligation['status']) => boolean): string =>
    obligations.flatMap(({ name, status }) => (wanted(status) ? [name] : [])).join(', ');
  const kept = named((status) => status === 'kept');
  const open = named((status) => status !== 'released' && status !== 'kept');
  const back = obligations.filter(({ status }) => status === 'released').length;
  return [
    ...(open === '' ? [] : [`NOT put back: ${open}`]),
    ...(kept === '' ? [] : [`left on purpose: ${kept}`]),
    `${back === obligations.length ? 'all ' : ''}${back} put back as before`,
  ].join('; ');
}

export const field = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;

const strings = (value: unknown): readonly string[] => (Array.isArray(value) ? value.map(String) : []);

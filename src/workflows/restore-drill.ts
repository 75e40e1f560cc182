import {
  type ActivityOptions,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  defineQuery,
  isCancellation,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  TemporalFailure,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { DrillActivities } from '../contract/activities.ts';
import {
  type DrillPhase,
  type DrillRequest,
  type DrillStatus,
  drillStartCommand,
  drillStep,
  parseDrillRequest,
} from '../contract/drill.ts';
import { DRILL_ERRORS } from '../contract/errors.ts';
import type { DrillInput, DrillRecord, PreparedDrill, RecordDrillInput } from '../contract/evidence/drill.ts';
import { SEARCH_ATTRIBUTES } from '../contract/search-attributes.ts';
import { failureText } from './failure.ts';
import { LOOK, PUT_BACK, TELL, TRANSFER } from './step-policies.ts';

type DrillResult = RecordDrillInput['result'];

/**
 * Brings a backup back on the scratch server, compares it with what was backed up, tidies up and records how long it took.
 * Production is not touched, so no lease is taken. Whatever happens in between, the scratch database is dropped and the
 * result recorded.
 *
 * @throws ApplicationFailure `DrillFailed` with the record, `DrillRefused` with findings
 */
export async function restoreDrill(...args: unknown[]): Promise<DrillRecord> {
  const parsed = parseDrillRequest(args);
  if (parsed.kind === 'invalid') throw refused([...parsed.findings, `start it with: ${drillStartCommand()}`]);
  const { request } = parsed;
  const drill = new Drill(request);
  const prepared = await prepare(drill);
  const result = await restore(drill, prepared);
  return CancellationScope.nonCancellable(() => conclude(drill, prepared, result));
}

async function prepare(drill: Drill): Promise<PreparedDrill> {
  const { workflowId, firstExecutionRunId: runId } = workflowInfo();
  try {
    const prepared = await drill.step('prepare', 'The backup to be restored', LOOK, (activities) =>
      activities.prepareDrill({ ...drill.request, workflowId, runId, findings: startFindings(drill.request) }),
    );
    drill.learn({ backup: prepared.manifest.backup.uri });
    return prepared;
  } catch (error) {
    if (!(error instanceof TemporalFailure)) throw error;
    drill.enter(isCancellation(error) ? 'cancelled' : 'refused');
    if (isCancellation(error)) throw error;
    const { message, findings } = failureText(error);
    throw refused(findings.length > 0 ? findings : [message]);
  }
}

async function restore(drill: Drill, prepared: PreparedDrill): Promise<DrillResult & { readonly cancelled?: true }> {
  try {
    const restored = await drill.step('restore', 'Restore on the scratch server, compare', TRANSFER, (activities) =>
      activities.restoreOnScratch(inputOf(prepared)),
    );
    return { kind: 'passed', restore: restored };
  } catch (error) {
    if (!(error instanceof TemporalFailure)) throw error;
    const cancelled = isCancellation(error);
    const why = cancelled ? 'the drill was cancelled' : failureText(error).message;
    drill.learn({ trouble: why });
    return { kind: 'failed', why, ...(cancelled && { cancelled }) };
  }
}

/** Drops the scratch database and records the result: neither is left out because the other one failed. */
async function conclude(
  drill: Drill,
  prepared: PreparedDrill,
  { cancelled, ...result }: Awaited<ReturnType<typeof restore>>,
): Promise<DrillRecord> {
  const input = inputOf(prepared);
  const troubles: string[] = result.kind === 'failed' ? [result.why] : [];
  try {
    await drill.step('drop', 'Drop the scratch database', PUT_BACK, (activities) =>
      activities.dropScratchDatabase(input),
    );
  } catch (error) {
    troubles.push(
      `the scratch database is still there, remove it with runbook sweep ${input.run.service} --remove: ${messageOf(error)}`,
    );
  }
  let record: DrillRecord | undefined;
  try {
    record = await drill.step('record', 'Record the result', TELL, (activities) =>
      activities.recordDrill({ ...input, startedAt: drill.startedAt, result }),
    );
  } catch (error) {
    troubles.push(`the result could not be recorded: ${messageOf(error)}`);
  }
  if (record !== undefined && troubles.length === 0) {
    drill.enter('passed');
    return record;
  }
  // Cancelled, and everything is as it was before.
  if (cancelled && record !== undefined && troubles.length === 1) {
    drill.enter('cancelled');
    throw new CancelledFailure('the drill was cancelled; its scratch database is dropped');
  }
  drill.learn({ trouble: troubles.join('; ') });
  drill.enter('failed');
  throw ApplicationFailure.nonRetryable(
    `The drill of ${input.run.service} failed: ${troubles.join('; ')}`.slice(0, 4000),
    DRILL_ERRORS.failed,
    ...(record === undefined ? [] : [record]),
  );
}

const inputOf = ({ run, profile, manifest }: PreparedDrill): DrillInput => ({ run, profile, manifest });

/** A programming error must reach Temporal and wait for a fix. */
function messageOf(error: unknown): string {
  if (!(error instanceof TemporalFailure)) throw error;
  return failureText(error).message;
}

/** The state of one drill and how it is shown: by the query `status` and in the details of the UI. */
class Drill {
  readonly request: DrillRequest;
  readonly startedAt = new Date().toISOString();
  private status: DrillStatus;

  constructor(request: DrillRequest) {
    this.request = request;
    const { service, requestedBy } = request;
    this.status = { service, requestedBy, phase: 'prepare', since: this.startedAt };
    setHandler(defineQuery<DrillStatus>('status'), () => this.status, { description: 'where the drill stands' });
    upsertSearchAttributes([{ key: SEARCH_ATTRIBUTES.service, value: service }]);
    this.publish();
  }

  enter(phase: DrillPhase): void {
    this.status = { ...this.status, phase, since: new Date().toISOString() };
    this.publish();
  }

  learn(facts: Pick<DrillStatus, 'backup' | 'trouble'>): void {
    this.status = { ...this.status, ...facts };
    this.publish();
  }

  /** Activity `drill.<phase>`. */
  step<T>(
    phase: Extract<DrillPhase, 'prepare' | 'restore' | 'drop' | 'record'>,
    summary: string,
    policy: ActivityOptions,
    call: (activities: DrillActivities) => Promise<T>,
  ): Promise<T> {
    this.enter(phase);
    return call(proxyActivities<DrillActivities>({ ...policy, activityId: drillStep(phase), summary }));
  }

  private publish(): void {
    const { service, requestedBy, phase, backup, trouble } = this.status;
    setCurrentDetails(
      [
        `**Restore drill of ${service}**, requested by ${requestedBy}`,
        `Phase: **${phase}**`,
        ...(backup === undefined ? [] : [`Backup: \`${backup}\``]),
        ...(trouble === undefined ? [] : [`Trouble: ${trouble}`]),
      ].join('\n\n'),
    );
  }
}

/** With a time-out the server would end a drill without tidying up. */
function startFindings(request: DrillRequest): readonly string[] {
  const { executionTimeoutMs, runTimeoutMs } = workflowInfo();
  const set = [
    ...(executionTimeoutMs !== undefined && executionTimeoutMs > 0 ? ['an execution timeout'] : []),
    ...(runTimeoutMs !== undefined && runTimeoutMs > 0 ? ['a run timeout'] : []),
  ].map((name) => `${name} is set: the server would end the drill without dropping its scratch database`);
  return set.length === 0 ? [] : [...set, `start it with: ${drillStartCommand(request)}`];
}

const refused = (findings: readonly string[]): ApplicationFailure =>
  ApplicationFailure.nonRetryable(
    `Refused, nothing was touched: ${findings.join('; ')}.`.slice(0, 4000),
    DRILL_ERRORS.refused,
    { findings },
  );

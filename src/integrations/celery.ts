/** Pauses and resumes Celery queues through Celery's own remote control, run in the service's Python. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { SwitchState } from '../contract/evidence/switches.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Switch } from '../contract/profile.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import { runProcess } from '../process/run.ts';
import { type IntegrationContext, runValues } from './context.ts';
import { fillTemplate } from './template.ts';

export type CeleryMechanism = Switch['mechanism'] & { readonly kind: 'celery' };

const SCRIPT = new URL('./python/celery_control.py', import.meta.url);
/** Importing the application and the last round of questions come on top of the time the profile gives. */
const MARGIN = 20_000;
const OUTPUT_LIMIT = 256 * 1024;

const controlAnswer = z.object({
  workers: z.array(z.string()),
  consumers: z.record(z.string(), z.array(z.string())),
  unfinished: z.int(),
  confirmed: z.boolean(),
});
type ControlAnswer = z.infer<typeof controlAnswer>;

/** Which workers consume the queues: `released` when any does, `engaged` when none of those that answer does. */
export async function readQueues(mechanism: CeleryMechanism, context: IntegrationContext): Promise<SwitchState> {
  const answer = await control(mechanism, 'read', {}, context);
  if (answer.workers.length === 0) return { state: 'unknown', detail: { note: 'no worker answered', workers: [] } };
  return { state: isConsumed(answer) ? 'released' : 'engaged', detail: detailOf(answer) };
}

/**
 * No worker consumes the queues any more; waiting tasks stay in them, those taken already are finished, and waited for as
 * long as the profile's time limit lasts (`unfinished` tells how many were left then).
 *
 * @throws StepError `OutsideUnavailable` when no worker answers or one that did does no longer: it may well consume
 */
export async function pauseQueues(mechanism: CeleryMechanism, context: IntegrationContext): Promise<SwitchState> {
  const answer = await control(mechanism, 'pause', {}, context);
  if (answer.confirmed) return { state: 'engaged', detail: detailOf(answer) };
  const still = Object.entries(answer.consumers).filter(([, workers]) => workers.length > 0);
  const why =
    answer.workers.length === 0
      ? 'no worker answered'
      : still.length === 0
        ? 'a worker that answered before does no longer'
        : still.map(([queue, workers]) => `${queue} is still consumed by ${workers.join(', ')}`).join('; ');
  throw new StepError(
    STEP_ERRORS.unavailable,
    `the queues ${mechanism.queues.join(', ')} are not proven to be paused: ${why}`,
    {
      ...detailOf(answer),
    },
  );
}

/**
 * The workers that consumed the queues before do so again. One that is gone is no obstacle where another consumes.
 *
 * @param before what `readQueues` told before the pause
 * @throws StepError `OutsideUnavailable` when it is not confirmed
 */
export async function resumeQueues(
  mechanism: CeleryMechanism,
  before: SwitchState,
  context: IntegrationContext,
): Promise<SwitchState> {
  const consumers = z.record(z.string(), z.array(z.string())).safeParse(before.detail['consumers']).data ?? {};
  const answer = await control(mechanism, 'resume', consumers, context);
  if (answer.confirmed && isConsumed(answer)) return { state: 'released', detail: detailOf(answer) };
  const silent = mechanism.queues.filter((queue) => (answer.consumers[queue] ?? []).length === 0);
  throw new StepError(
    STEP_ERRORS.unavailable,
    `the queues ${silent.join(', ') || mechanism.queues.join(', ')} are not proven to be consumed again ` +
      `(${answer.workers.length === 0 ? 'no worker answered' : `workers: ${answer.workers.join(', ')}`}): ` +
      `start the workers, or run celery -A ${mechanism.app} control add_consumer QUEUE`,
    { ...detailOf(answer) },
  );
}

const isConsumed = (answer: ControlAnswer): boolean =>
  Object.values(answer.consumers).some((workers) => workers.length > 0);

const detailOf = ({ workers, consumers, unfinished }: ControlAnswer) => ({ workers, consumers, unfinished });

async function control(
  mechanism: CeleryMechanism,
  action: 'read' | 'pause' | 'resume',
  consumers: Readonly<Record<string, readonly string[]>>,
  context: IntegrationContext,
): Promise<ControlAnswer> {
  const checkout = await context.checkout();
  const values = { ...runValues(context.run), checkout };
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(mechanism.environment)) {
    environment[name] =
      typeof value === 'string' ? fillTemplate(value, values) : await context.secrets.resolveValue(value);
  }
  const order = { app: mechanism.app, action, queues: mechanism.queues, consumers, seconds: mechanism.timeout / 1000 };
  const limit = AbortSignal.timeout(mechanism.timeout + MARGIN);
  const failure = (why: string): StepError =>
    new StepError(STEP_ERRORS.unavailable, `Celery's remote control of ${mechanism.app}: ${why}`);
  try {
    const result = await runProcess({
      file: mechanism.python,
      // The text, not the path: the script then runs from wherever this program is packed.
      args: ['-c', await readFile(SCRIPT, 'utf8')],
      directory: checkout,
      environment: { PYTHONDONTWRITEBYTECODE: '1', ...environment },
      input: JSON.stringify(order),
      signal: AbortSignal.any([context.signal, limit]),
      redactor: context.secrets.redactor,
      limits: { tail: OUTPUT_LIMIT, line: OUTPUT_LIMIT },
      label: `celery ${action}`,
    });
    if (result.kind !== 'exited' || result.code !== 0) {
      const said = result.stderrTail.trim().split('\n').at(-1) ?? '';
      throw failure(said === '' ? 'ended without saying why' : said.slice(0, 500));
    }
    return controlAnswer.parse(JSON.parse(result.stdoutTail));
  } catch (error) {
    if (context.signal.aborted) throw context.signal.reason;
    if (error instanceof StepError) throw error;
    if (error instanceof ProcessNotStarted)
      throw refusal([`Celery's remote control of ${mechanism.app}: ${error.message}`]);
    if (limit.aborted) throw failure('did not answer in time');
    throw failure('gave an answer that cannot be read');
  }
}

import {
  type Client,
  type ScheduleDescription,
  ScheduleAlreadyRunning,
  ScheduleNotFoundError,
  type ScheduleOptions,
  type ScheduleUpdateOptions,
} from '@temporalio/client';
import { DRILL_WORKFLOW_TYPE, type DrillRequest, drillIdOf } from '../contract/drill.ts';
import { timeText } from '../report/quantity.ts';
import { CommandError, EXIT_CODES } from './command-error.ts';
import { invalidArgument } from './connection.ts';

export interface ScheduleView {
  readonly id: string;
  readonly paused: boolean;
  readonly note: string;
  /** ISO 8601, UTC; the next three. */
  readonly next: readonly string[];
  readonly lastStarted: string | null;
}

/**
 * Creates the schedule of a service's drills, or gives the one that is there new times. Of drills that are due while one
 * still runs none is started.
 *
 * @param cron five fields in UTC, or with `CRON_TZ=Europe/Berlin` before them
 */
export async function scheduleDrills(
  client: Client,
  request: DrillRequest,
  cron: string,
  taskQueue: string,
): Promise<'created' | 'updated'> {
  const scheduleId = drillIdOf(request.service);
  const options: ScheduleOptions = {
    scheduleId,
    spec: { cronExpressions: [cron] },
    action: {
      type: 'startWorkflow',
      workflowType: DRILL_WORKFLOW_TYPE,
      workflowId: scheduleId,
      taskQueue,
      args: [request],
    },
    // After an outage one drill is caught up on, if it is not a day late.
    policies: { overlap: 'SKIP', catchupWindow: '1 day' },
    state: { note: `restore drills of ${request.service}, by ${request.requestedBy}` },
  };
  try {
    await client.schedule.create(options);
    return 'created';
  } catch (error) {
    if (!(error instanceof ScheduleAlreadyRunning)) throw scheduleError(error, cron);
  }
  try {
    await client.schedule.getHandle(scheduleId).update(
      (previous): ScheduleUpdateOptions => ({
        ...previous,
        ...(options as ScheduleUpdateOptions),
        // Who has paused it, paused it for a reason.
        state: { ...previous.state, ...options.state },
      }),
    );
    return 'updated';
  } catch (error) {
    throw scheduleError(error, cron);
  }
}

/** @throws CommandError where there is none */
export async function unscheduleDrills(client: Client, service: string): Promise<void> {
  try {
    await client.schedule.getHandle(drillIdOf(service)).delete();
  } catch (error) {
    if (error instanceof ScheduleNotFoundError) throw new CommandError(`drills of ${service} are not scheduled`);
    throw error;
  }
}

export async function readSchedule(client: Client, service: string): Promise<ScheduleView | undefined> {
  try {
    const { scheduleId, state, info }: ScheduleDescription = await client.schedule
      .getHandle(drillIdOf(service))
      .describe();
    return {
      id: scheduleId,
      paused: state.paused,
      note: state.note ?? '',
      next: info.nextActionTimes.slice(0, 3).map((time) => time.toISOString()),
      lastStarted: info.recentActions.at(-1)?.takenAt.toISOString() ?? null,
    };
  } catch (error) {
    if (error instanceof ScheduleNotFoundError) return undefined;
    throw error;
  }
}

export const scheduleText = ({ id, paused, next }: ScheduleView): string =>
  paused
    ? `${id}, paused (temporal schedule toggle --unpause --schedule-id ${id})`
    : `${id}, next at ${next.map(timeText).join(', ') || 'no time at all'}`;

function scheduleError(error: unknown, cron: string): unknown {
  // The SDK turns the server's answer to a new schedule into a TypeError, that to an update it does not.
  const details = error instanceof TypeError ? error.message : invalidArgument(error);
  return details === undefined
    ? error
    : new CommandError(
        `--schedule ${JSON.stringify(cron)} was refused (${details}): five fields like "0 3 * * 0", in UTC`,
        EXIT_CODES.usage,
      );
}

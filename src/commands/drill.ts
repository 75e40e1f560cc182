import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import type { Command } from 'commander';
import { DRILL_WORKFLOW_TYPE, type DrillRequest, drillIdOf, parseDrillRequest } from '../contract/drill.ts';
import { TASK_QUEUE } from '../contract/request.ts';
import { type DrillEnd, findLastDrill, readDrill } from '../history/drill-view.ts';
import { readTaskQueue } from '../history/execution.ts';
import { clockText } from '../report/quantity.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError, EXIT_CODES, usageError } from './command-error.ts';
import { withClient, withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import { readSchedule, scheduleDrills, scheduleText, unscheduleDrills } from './drill-schedule.ts';
import { drillEndLines, drillExitCode, drillText, liveLine, phaseLine } from './drill-text.ts';
import type { Output } from './output.ts';

interface DrillOptions extends TemporalAddress {
  readonly by?: string;
  readonly backup?: string;
  readonly wait?: true;
  readonly status?: true;
  readonly json?: true;
  readonly schedule?: string;
  readonly unschedule?: true;
  readonly taskQueue: string;
}

/** The request as the command's options give it, checked before anything is started. */
export function drillRequestOf(service: string, { by, backup }: Pick<DrillOptions, 'by' | 'backup'>): DrillRequest {
  const parsed = parseDrillRequest([
    { service, ...(by !== undefined && { requestedBy: by }), ...(backup !== undefined && { backup }) },
  ]);
  if (parsed.kind === 'valid') return parsed.request;
  throw usageError(
    parsed.findings.map((finding) =>
      finding
        .replaceAll('"service"', 'the service')
        .replaceAll('"requestedBy"', '--by')
        .replaceAll('"backup"', '--backup'),
    ),
  );
}

interface StartedDrill {
  readonly workflowId: string;
  readonly runId: string;
}

/** @throws CommandError naming the drill that is there already */
async function startDrill(client: Client, request: DrillRequest, taskQueue: string): Promise<StartedDrill> {
  const workflowId = drillIdOf(request.service);
  try {
    const handle = await client.workflow.start(DRILL_WORKFLOW_TYPE, {
      workflowId,
      taskQueue,
      args: [request],
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      staticSummary: `restore drill of ${request.service}`,
    });
    return { workflowId, runId: handle.firstExecutionRunId };
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    throw new CommandError(
      `a drill of ${request.service} is there already: ${workflowId}; see runbook drill ${request.service} --status`,
    );
  }
}

const LOOK_EVERY = 1_000;

/** Follows a drill to its end. Ctrl-C ends the watching, not the drill. */
async function watchDrill(client: Client, { workflowId, runId }: StartedDrill, output: Output): Promise<DrillEnd> {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    let told = '';
    for (;;) {
      const view = await readDrill(client, client.workflow.getHandle(workflowId, runId));
      if (view.end) return view.end;
      const now = Date.now();
      const phase = view.status.kind === 'answered' ? view.status.value.phase : view.status.why;
      if (phase !== told) output.print(`${clockText(new Date(now).toISOString())} ${phaseLine(view, now)}`);
      told = phase;
      output.replace(liveLine(view, now));
      await sleep(LOOK_EVERY, undefined, { signal: interrupted.signal });
    }
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
    throw new CommandError(`no longer watched; the drill ${workflowId} goes on`, EXIT_CODES.interrupted);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

/** One thing at a time. */
function modeOf(options: DrillOptions): 'start' | 'status' | 'schedule' | 'unschedule' {
  const asked = (['status', 'schedule', 'unschedule'] as const).filter((mode) => options[mode] !== undefined);
  if (asked.length > 1) throw usageError([`give one of ${asked.map((mode) => `--${mode}`).join(', ')}`]);
  const [mode = 'start'] = asked;
  if (mode !== 'status' && options.json) throw usageError(['--json goes with --status only']);
  if (mode !== 'start' && options.wait) throw usageError([`--wait does not go with --${mode}`]);
  if (mode === 'schedule' && options.backup !== undefined) {
    throw usageError(['--backup does not go with --schedule: scheduled drills take the latest verified backup']);
  }
  return mode;
}

export function addDrill(program: Command, { output, exit }: CommandContext): void {
  withConnectionOptions(program.command('drill'))
    .description('restore a backup on the scratch server, compare it with its ledger, record how long it took')
    .argument('<service>', 'name of the service: it has a profile on the workers')
    .option('--by <who>', 'who asks for it; not needed with --status and --unschedule')
    .option('--backup <uri>', 'a backup, as runbook backup list shows it; default the latest verified one')
    .option('--wait', 'follow it, and exit with 0 only if it passed')
    .option('--status', 'show the last drill and the schedule')
    .option('--json', 'with --status: as one JSON document')
    .option('--schedule <cron>', 'drill at these times, e.g. "0 3 * * 0" in UTC; replaces earlier times')
    .option('--unschedule', 'no longer drill by itself')
    .option('--task-queue <name>', 'task queue of the workers', TASK_QUEUE)
    .addHelpText(
      'after',
      `
Production is not touched. The scratch database is dropped at the end, whatever happens.
Exit codes: 0 passed or done, 1 did not pass, refused or not reachable, 2 wrong usage, 7 ended without a result,
130 interrupted (the drill goes on).

Examples:
  runbook drill whisper-transcriber --by dana@example.com --wait
  runbook drill whisper-transcriber --by dana@example.com --schedule "0 3 * * 0"
  runbook drill whisper-transcriber --by dana@example.com --schedule "CRON_TZ=Europe/Berlin 0 3 * * 0"
  runbook drill whisper-transcriber --status`,
    )
    .action(async (service: string, options: DrillOptions) => {
      const mode = modeOf(options);
      // Without a name only what needs none: the placeholder is never sent.
      const request = drillRequestOf(service, mode === 'start' || mode === 'schedule' ? options : { by: 'nobody' });
      await withClient(options, async (client) => {
        switch (mode) {
          case 'start': {
            const drill = await startDrill(client, request, options.taskQueue);
            output.print(`started ${drill.workflowId}, run ${drill.runId}`);
            await noteMissingWorker(client, options.taskQueue, output);
            if (!options.wait) {
              output.print(`see how it goes with: runbook drill ${service} --status`);
              return;
            }
            const end = await watchDrill(client, drill, output);
            for (const line of drillEndLines(end)) output.print(line);
            exit(drillExitCode(end));
            return;
          }
          case 'status': {
            const handle = await findLastDrill(client, service);
            const [last, schedule] = await Promise.all([
              handle && readDrill(client, handle),
              readSchedule(client, service),
            ]);
            output.print(
              options.json
                ? JSON.stringify({ last: last ?? null, schedule: schedule ?? null }, null, 2)
                : drillText(last, schedule, Date.now()),
            );
            return;
          }
          case 'schedule': {
            const done = await scheduleDrills(client, request, options.schedule!, options.taskQueue);
            const schedule = await readSchedule(client, service);
            output.print(`${done}: ${schedule === undefined ? drillIdOf(service) : scheduleText(schedule)}`);
            await noteMissingWorker(client, options.taskQueue, output);
            return;
          }
          case 'unschedule':
            await unscheduleDrills(client, service);
            output.print(`drills of ${service} are no longer scheduled`);
        }
      });
    });
}

async function noteMissingWorker(client: Client, taskQueue: string, output: Output): Promise<void> {
  const { workers } = await readTaskQueue(client, taskQueue, Date.now());
  if (workers.length > 0) return;
  output.note(`no worker polls the task queue ${taskQueue}: drills wait until one is started with runbook worker`);
}

import type { Client } from '@temporalio/client';
import { type Command, Option } from 'commander';
import type { RunReport } from '../contract/report.ts';
import { workflowIdOf } from '../contract/request.ts';
import { reportInHistory, type ReportInHistory } from '../history/archived-report.ts';
import { type ExecutionView, executionView } from '../history/execution.ts';
import { readEnd, type RunEnd } from '../history/run-end.ts';
import { renderHtml } from '../report/html.ts';
import { renderMarkdown } from '../report/markdown.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { CommandError } from './command-error.ts';
import { withClient, withConnectionOptions, withRun } from './connection.ts';
import type { CommandContext } from './context.ts';
import { oneLine } from './one-line.ts';
import { endLines, endText } from './run-texts.ts';

const FORMATS = ['json', 'markdown', 'html'] as const;
export type ReportFormat = (typeof FORMATS)[number];
/** As the archived file ends. */
const SHORT = 'md';

export interface ReportOptions extends TemporalAddress {
  readonly run?: string;
  readonly format?: ReportFormat | typeof SHORT;
  readonly profiles?: string;
}

export interface FoundReport {
  readonly execution: ExecutionView;
  readonly end: RunEnd;
  readonly inHistory: ReportInHistory | undefined;
}

/**
 * How a run ended, with its report as the history holds it: no worker and no object store is needed for it.
 *
 * @throws CommandError when there is no such run, or it has not ended
 */
export async function findReport(client: Client, service: string, runId?: string): Promise<FoundReport> {
  const execution = await withRun(service, runId, async () =>
    executionView(await client.workflow.getHandle(workflowIdOf(service), runId).describe()),
  );
  if (execution.closedAt === undefined) {
    throw new CommandError(`the run ${execution.runId} of ${service} has not ended; see: runbook status ${service}`);
  }
  const handle = client.workflow.getHandle(execution.workflowId, execution.runId);
  const [end, { events }] = await Promise.all([readEnd(handle, execution), handle.fetchHistory()]);
  return { execution, end, inHistory: reportInHistory(events ?? []) };
}

/** The report in one of its forms, the same as the archived one. */
export function renderReport(report: RunReport, format: ReportFormat): string {
  switch (format) {
    case 'json':
      return `${JSON.stringify(report, null, 2)}\n`;
    case 'markdown':
      return renderMarkdown(report);
    case 'html':
      return renderHtml(report);
  }
}

/** What is printed without a format: how it ended, what is open, where the report lies. */
export function summaryText({ execution, end, inHistory }: FoundReport): string {
  const summary = end.kind === 'ended' ? end.summary : undefined;
  const archived = inHistory?.archived;
  return [
    ...endLines(end),
    `run ${execution.runId}, ${execution.startedAt} to ${execution.closedAt ?? ''}`,
    ...(summary?.openItems ?? inHistory?.report.openItems ?? []).map((item) => `still open: ${oneLine(item)}`),
    ...(archived
      ? [`report: ${archived.json.uri}`, `        ${archived.markdown.uri}`, `        ${archived.html.uri}`]
      : [`report: ${summary?.report ?? 'not archived'}`]),
  ].join('\n');
}

export function addReport(program: Command, { output }: CommandContext): void {
  withConnectionOptions(program.command('report'))
    .description('how a run ended: its summary and where its report is archived, or the report itself')
    .argument('<service>', 'name of the service')
    .option('--run <id>', 'an earlier run; default the last one')
    .addOption(
      new Option('--format <format>', `print the report itself; ${SHORT} is markdown`).choices([...FORMATS, SHORT]),
    )
    .option('--profiles <folder>', 'with --format: fetch the archived document, with the secrets the profile refers to')
    .addHelpText(
      'after',
      '\nWithout --profiles the report is rendered from the history of the workflow: neither a worker nor the object store is\nneeded.\n\nExamples:\n  runbook report whisper-transcriber\n  runbook report whisper-transcriber --format html > report.html',
    )
    .action(async (service: string, options: ReportOptions) => {
      const format = options.format === SHORT ? 'markdown' : options.format;
      await withClient(options, async (client) => {
        const found = await findReport(client, service, options.run);
        output.print(
          format === undefined ? summaryText(found) : await document(found, service, format, options.profiles),
        );
      });
    });
}

async function document(
  { end, inHistory }: FoundReport,
  service: string,
  format: ReportFormat,
  profiles: string | undefined,
): Promise<string> {
  if (!inHistory) throw new CommandError(`there is no report: ${endText(end)}`);
  if (profiles === undefined) return renderReport(inHistory.report, format);
  if (!inHistory.archived)
    throw new CommandError('the report could not be archived; without --profiles it is rendered from the history');
  // The object store's client and the profile's schema are heavy: no other command needs them.
  const { fetchArchived } = await import('./archived-document.ts');
  return fetchArchived(profiles, service, inHistory.archived[format]);
}

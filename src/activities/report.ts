import { Context } from '@temporalio/activity';
import type { CloseoutActivities } from '../contract/activities.ts';
import type { MessageSender, RunReport } from '../contract/report.ts';
import { messageSenders } from '../history/message-senders.ts';
import { renderHtml } from '../report/html.ts';
import { renderMarkdown } from '../report/markdown.ts';
import { runStep } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { nameInExecution, withRunStore } from './run-store.ts';

/**
 * Archives the report as `report.json`, `report.md` and `report.html` in the run's folder. Archived again, it replaces what
 * was there: a later report knows more. That of an execution which a workflow reset went on with stands beside the first.
 */
export const archiveReport =
  ({ client, secrets }: Pick<ActivityDependencies, 'client' | 'secrets'>): CloseoutActivities['archiveReport'] =>
  (input) =>
    runStep(secrets, ({ signal, progress }) =>
      withRunStore(secrets, input, signal, async ({ archive }) => {
        progress({ phase: 'senders' });
        const senders = await readSenders(client);
        const report: RunReport = { ...input.report, ...(senders && { senders }) };
        progress({ phase: 'archive' });
        const name = nameInExecution('report', input.run.runId);
        return {
          json: await archive(`${name}.json`, `${JSON.stringify(report, null, 2)}\n`, 'application/json'),
          markdown: await archive(`${name}.md`, renderMarkdown(report), 'text/markdown; charset=utf-8'),
          html: await archive(`${name}.html`, renderHtml(report), 'text/html; charset=utf-8'),
        };
      }),
    );

/** Milliseconds. */
const READING_LIMIT = 30_000;

/** A report without the senders is better than none. */
async function readSenders(client: ActivityDependencies['client']): Promise<readonly MessageSender[] | undefined> {
  const { workflowExecution } = Context.current().info;
  if (workflowExecution === undefined) return undefined;
  const { workflowId, runId } = workflowExecution;
  try {
    const { events } = await client.withDeadline(Date.now() + READING_LIMIT, () =>
      client.workflow.getHandle(workflowId, runId).fetchHistory(),
    );
    return messageSenders(events ?? []);
  } catch {
    return undefined;
  }
}

import { setTimeout as delay } from 'node:timers/promises';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { DIGEST_PREFIX } from '../../src/contract/plan.ts';
import type { RunStatus, StepRecord } from '../../src/contract/status.ts';
import { addScenarioRows, type Example, resetExample } from '../stack/example.ts';
import type { Deciders } from './decisions.ts';
import { endOf, startMigration } from './driving.ts';
import { writeProfile } from './profile.ts';
import { compareWithReality, type Picture, takePicture } from './reality.ts';
import type { Scenario } from './scenarios.ts';

export interface ScenarioResult {
  readonly scenario: string;
  readonly workflowId: string;
  readonly outcome: string;
  readonly expected: string;
  readonly seconds: number;
  /** URI of the archived report; null when none was archived. */
  readonly report: string | null;
  /** Where production differs from what the outcome claims, and what is still open. Empty when all is well. */
  readonly findings: readonly string[];
}

export interface ScenarioOptions {
  readonly example: Example;
  readonly client: Client;
  readonly deciders: Deciders;
  readonly say: (line: string) => void;
  /** Default: the product's own. */
  readonly taskQueue?: string;
}

/** Puts the example back to its first day, runs the scenario and compares production with how it ended. */
export async function runScenario(
  scenario: Scenario,
  { example, client, deciders, say, taskQueue }: ScenarioOptions,
): Promise<ScenarioResult> {
  await resetExample(example);
  const profile = await writeProfile(example, scenario.changes);
  const before = await takePicture(example);
  const began = Date.now();
  const { releaseTag } = scenario;
  const handle = await startMigration(
    { client, profile, ...(taskQueue && { taskQueue }) },
    { releaseTag, changeTicket: `CHG-${scenario.name}` },
  );
  say(`${scenario.name}: ${scenario.sentence}; run ${handle.workflowId}`);
  const { loaded } = await follow(handle, scenario, { example, client, deciders, say });
  const summary = await endOf(handle);
  const seconds = (Date.now() - began) / 1000;
  const target = await handle.query<{ plan: { targetRevision: string } } | null>('plan');
  const status = await handle.query<RunStatus>('status');
  const findings = [
    ...(await compareWithReality(example, {
      outcome: summary.outcome,
      before,
      loaded: loaded ?? before,
      targetRevision: target?.plan.targetRevision ?? '',
    })),
    ...status.obligations
      .filter((obligation) => obligation.status !== 'released')
      .map((obligation) => `obligation ${obligation.name} is ${obligation.status}`),
    ...(summary.openItems ?? []).map((item) => `open: ${item}`),
  ];
  return {
    scenario: scenario.name,
    workflowId: handle.workflowId,
    outcome: summary.outcome,
    expected: scenario.expected,
    seconds: Math.round(seconds * 10) / 10,
    report: summary.report ?? null,
    findings,
  };
}

interface Followed {
  /** Production after the scenario's rows were added. */
  readonly loaded: Picture | undefined;
}

/** Shows every step as it begins and ends, and answers at the gates, until the run has ended. */
async function follow(
  handle: WorkflowHandle,
  scenario: Scenario,
  { example, deciders, say }: ScenarioOptions,
): Promise<Followed> {
  let shown = new Map<string, StepRecord['status']>();
  let loaded: Picture | undefined;
  let aborted = false;
  let answered = '';
  for (;;) {
    const [status, timeline] = await Promise.all([
      handle.query<RunStatus>('status'),
      handle.query<readonly StepRecord[]>('timeline'),
    ]);
    shown = show(timeline, shown, say);
    if (status.stage === 'ended') return { loaded };
    const { waiting } = status;
    const gate = waiting && 'gate' in waiting ? `${waiting.gate} ${JSON.stringify(waiting)}` : '';
    if (gate !== answered) {
      answered = gate;
      if (waiting?.for === 'approval') {
        await deciders.atProduction(handle, scenario, waiting.planDigest.slice(0, DIGEST_PREFIX));
        if (scenario.defectRows === 'add') {
          await addScenarioRows(example, scenario.releaseTag);
          loaded = await takePicture(example);
        }
      } else if (waiting?.for === 'recovery') await deciders.atRecovery(handle, scenario, waiting.actions, waiting.why);
    }
    if (!aborted && scenario.abortAfterRevisions !== undefined && status.stage === 'upgrade') {
      aborted = await abortOnceCommitted(handle, example, scenario, loaded);
    }
    await delay(200);
  }
}

function show(
  timeline: readonly StepRecord[],
  shown: ReadonlyMap<string, StepRecord['status']>,
  say: (line: string) => void,
): Map<string, StepRecord['status']> {
  for (const step of timeline) {
    if (shown.get(step.id) === step.status) continue;
    const took = step.endedAt
      ? ` ${((Date.parse(step.endedAt) - Date.parse(step.startedAt)) / 1000).toFixed(1)} s`
      : '';
    say(
      `${step.startedAt.slice(11, 19)} ${step.status.padEnd(9)} ${step.id.padEnd(36)}${took}${step.error ? `  ${step.error.slice(0, 200)}` : `  ${step.summary}`}`,
    );
  }
  return new Map(timeline.map(({ id, status }) => [id, status]));
}

async function abortOnceCommitted(
  handle: WorkflowHandle,
  example: Example,
  scenario: Scenario,
  loaded: Picture | undefined,
): Promise<boolean> {
  const { versionRows } = await takePicture(example);
  if (versionRows.join() === loaded?.versionRows.join()) return false;
  await handle.signal('abort', { by: 'frank@example.com', reason: `scenario ${scenario.name}` });
  return true;
}

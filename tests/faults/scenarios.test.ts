import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { byScenario } from '../../scripts/scenarios/decisions.ts';
import { atGate, endOf, until } from '../../scripts/scenarios/driving.ts';
import { writeProfile } from '../../scripts/scenarios/profile.ts';
import { compareWithReality, takePicture } from '../../scripts/scenarios/reality.ts';
import { runScenario } from '../../scripts/scenarios/run-scenario.ts';
import { scenarioNamed } from '../../scripts/scenarios/scenarios.ts';
import { deployExample, type Example, resetExample } from '../../scripts/stack/example.ts';
import { programs } from '../../scripts/stack/layout.ts';
import { randomName, useStack } from '../stack.ts';
import { useWorker } from '../worker.ts';

const stack = useStack();
let example: Example;
let profiles = '';

beforeAll(async () => {
  example = await deployExample(stack, { database: randomName('scenario') });
  profiles = (await writeProfile(example)).directory;
}, 120_000);

const worker = useWorker(() => profiles);
const quiet = (): void => {};

// Those in which production is changed; the others are in the workflow's own tests and in the demo.
describe('production is what the outcome says, read from the database', () => {
  it.each(['abort-during', 'fails', 'corrupts'])('after the scenario %s', async (name) => {
    const { client, taskQueue } = worker;
    const result = await runScenario(scenarioNamed(name), {
      example,
      client,
      taskQueue,
      say: quiet,
      deciders: byScenario(quiet),
    });
    expect(result).toMatchObject({ outcome: result.expected, findings: [] });
    expect(result.report).toMatch(/^s3:\/\/.*report\.json$/);
  });
});

it('is driven to succeeded by the temporal command line alone', async () => {
  await resetExample(example);
  const { service } = await writeProfile(example);
  const before = await takePicture(example);
  const id = `migrate-${service}`;
  const input = { service, releaseTag: 'v1.1.0', changeTicket: 'CHG-1042', requestedBy: 'dana@example.com' };
  await temporal(
    'start',
    '--type',
    'databaseMigration',
    '--task-queue',
    worker.taskQueue,
    '--workflow-id',
    id,
    '--input',
    JSON.stringify(input),
  );
  const handle = worker.client.workflow.getHandle(id);
  const { waiting } = await until(handle, atGate('approval'));
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest.slice(0, 12) : '';
  await temporal(
    'signal',
    '--workflow-id',
    id,
    '--name',
    'approve',
    '--input',
    JSON.stringify({ by: 'erin@example.com', planDigest }),
  );
  expect((await endOf(handle)).outcome).toBe('succeeded');
  const expectation = {
    outcome: 'succeeded',
    before,
    loaded: before,
    targetRevision: '0005_transcript_search',
  } as const;
  expect(await compareWithReality(example, expectation)).toEqual([]);
});

const temporal = (...words: string[]): Promise<unknown> =>
  promisify(execFile)(programs.temporal, ['workflow', ...words, '--address', stack.temporal.address]);

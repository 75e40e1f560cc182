import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Context } from '@temporalio/activity';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { expect, it } from 'vitest';
import { requireCurrentAttempt } from '../../src/activities/current-attempt.ts';
import { randomName, useStack } from '../stack.ts';
import type { TwoAttempts } from './two-attempts-workflow.ts';

const { temporal } = useStack();

it('an attempt that the server has given up for lost finds out, while the next one works and after the step has ended', async () => {
  Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter: 'ERROR' } } });
  const second = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<void>();
  const told: string[] = [];
  const ask = async (): Promise<void> => {
    const { attempt } = Context.current().info;
    await requireCurrentAttempt().then(
      () => told.push(`${attempt}: goes on`),
      (error: unknown) => told.push(error instanceof Error ? error.message : String(error)),
    );
  };
  const activities: TwoAttempts = {
    work: async () => {
      const { attempt } = Context.current().info;
      if (attempt === 1) {
        await ask();
        // Frozen: no heartbeat.
        await second.promise;
        await ask();
        answered.resolve();
        await ended.promise;
        await ask();
        return 'first';
      }
      await ask();
      second.resolve();
      const beat = setInterval(() => Context.current().heartbeat(), 200);
      await answered.promise;
      clearInterval(beat);
      return 'second';
    },
  };
  const taskQueue = randomName('queue');
  const worker = await Worker.create({
    connection: await NativeConnection.connect({ address: temporal.address }),
    namespace: temporal.namespace,
    taskQueue,
    workflowsPath: fileURLToPath(new URL('two-attempts-workflow.ts', import.meta.url)),
    activities,
  });
  const connection = await Connection.connect({ address: temporal.address });
  const client = new Client({ connection, namespace: temporal.namespace });
  await worker.runUntil(async () => {
    const result = await client.workflow.execute('twoAttempts', { taskQueue, workflowId: randomUUID() });
    expect(result).toBe('second');
    ended.resolve();
    await expect.poll(() => told.length).toBe(4);
  });
  await connection.close();
  expect(told).toEqual([
    '1: goes on',
    '2: goes on',
    'attempt 1 of 1 was given up for lost by the server, and stops: attempt 2 does it now',
    'attempt 1 of 1 was given up for lost by the server, and stops: the step has ended',
  ]);
});

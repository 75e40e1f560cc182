import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { TASK_QUEUE } from '../contract/request.ts';
import { connectionSettings, type TemporalAddress } from '../temporal-connection.ts';
import { CommandError } from './command-error.ts';
import { withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';
import type { Output } from './output.ts';
import { withProfiles } from './profiles-option.ts';

export interface WorkerOptions extends TemporalAddress {
  readonly profiles: string;
  readonly state: string;
  readonly bundle?: string;
  readonly taskQueue: string;
}

/** The same two levels up from the source and from the build. */
const DEFAULT_BUNDLE = fileURLToPath(new URL('../../dist/workflow-bundle.js', import.meta.url));

/** Runs a worker until SIGINT or SIGTERM; returns once its steps have stopped. */
export async function runWorker(options: WorkerOptions, output: Output): Promise<void> {
  const bundlePath = await existing(
    options.bundle ?? DEFAULT_BUNDLE,
    'the workflow bundle',
    'build it with: npm run bundle',
  );
  const profilesDirectory = await existing(options.profiles, 'the folder of profiles', 'give it with --profiles');
  // The worker brings native code and everything the steps need: the other commands do without.
  const { createWorker } = await import('../worker.ts');
  const worker = await createWorker({
    profilesDirectory,
    stateDirectory: resolve(options.state),
    bundlePath,
    taskQueue: options.taskQueue,
    address: options.address,
    namespace: options.namespace,
  });
  const running = worker.run();
  const { address, namespace } = connectionSettings(options);
  output.print(`worker ready: task queue ${options.taskQueue}, namespace ${namespace}, server ${address}`);
  await running;
  output.print('worker stopped');
}

async function existing(path: string, what: string, remedy: string): Promise<string> {
  const absolute = resolve(path);
  try {
    await access(absolute);
    return absolute;
  } catch {
    throw new CommandError(`${what} is not there: ${absolute}; ${remedy}`);
  }
}

export function addWorker(program: Command, { output }: CommandContext): void {
  withProfiles(withConnectionOptions(program.command('worker')))
    .description('run a worker that carries out migrations, until it is told to stop (SIGTERM or Ctrl-C)')
    .requiredOption('--state <folder>', 'cache of checkouts; may be lost at any time')
    .option('--bundle <file>', 'workflow bundle; default the one in dist/ of this package')
    .option('--task-queue <name>', 'task queue', TASK_QUEUE)
    .addHelpText(
      'after',
      '\nPrints "worker ready" once it polls. On SIGTERM its steps get 5 seconds to stop their programs and sessions; another\nworker, or this one started again, goes on with them.\n\nExample:\n  runbook worker --profiles config/services --state /var/lib/migration-runbook',
    )
    .action((options: WorkerOptions) => runWorker(options, output));
}

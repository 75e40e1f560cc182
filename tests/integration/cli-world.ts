/** A Temporal namespace, a worker with scripted activities and the command `runbook` as people run it: as a program. */
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { afterAll, inject } from 'vitest';
import { parseDocument } from 'yaml';
import { ensureBundle } from '../../scripts/build-bundle.ts';
import { readLease } from '../../src/activities/preconditions/lease.ts';
import { archiveReport } from '../../src/activities/report.ts';
import { createSecretVault } from '../../src/profile/secret-vault.ts';
import { runCommandLine } from '../../src/commands/program.ts';
import type { MigrationActivities } from '../../src/contract/activities.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { workflowIdOf } from '../../src/contract/request.ts';
import type { RunStatus } from '../../src/contract/status.ts';
import { loadProfile } from '../../src/profile/load.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import {
  production,
  profile as scriptedProfile,
  scriptedActivities,
  type World,
} from '../workflow/scripted-activities.ts';
import { randomName } from '../stack.ts';

const root = new URL('../../', import.meta.url);

Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter: 'ERROR' } } });

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunningCommand {
  readonly ended: Promise<Ended>;
  readonly kill: (signal: NodeJS.Signals) => void;
  /** Waits until standard output holds a text. */
  readonly says: (text: string) => Promise<void>;
}

export interface CliWorld {
  readonly client: Client;
  readonly namespace: string;
  /** Folder of profiles: one for each service that was made. */
  readonly profiles: string;
  /** The command in this process: quicker, and the same but for signals. */
  readonly runbook: (...words: string[]) => Promise<Ended>;
  /** The command as a program of its own. */
  readonly begin: (...words: string[]) => RunningCommand;
}

/** A namespace of one's own, without search attributes. */
export async function createNamespace(address: string): Promise<string> {
  const connection = await Connection.connect({ address });
  try {
    const namespace = randomName('cli').replaceAll('_', '-');
    await connection.workflowService.registerNamespace({
      namespace,
      workflowExecutionRetentionPeriod: { seconds: (24 * 3600) as never },
    });
    // A new namespace reaches the parts of the server one after the other.
    for (;;) {
      try {
        await connection.workflowService.listWorkflowExecutions({ namespace });
        await connection.operatorService.listSearchAttributes({ namespace });
        return namespace;
      } catch {
        await sleep(200);
      }
    }
  } finally {
    await connection.close();
  }
}

/** May be called in a hook: those of the file are closed at its end. */
const connections: Connection[] = [];
afterAll(() => Promise.all(connections.map((connection) => connection.close())));

export async function createWorld(): Promise<CliWorld> {
  const { address } = inject('stack').temporal;
  const namespace = await createNamespace(address);
  const connection = await Connection.connect({ address });
  const profiles = await temporaryDirectory('runbook-cli');
  connections.push(connection);
  process.env['TEMPORAL_ADDRESS'] = address;
  process.env['TEMPORAL_NAMESPACE'] = namespace;
  return {
    client: new Client({ connection, namespace }),
    namespace,
    profiles,
    begin: (...words) => beginCommand(words),
    runbook: runHere,
  };
}

async function runHere(...words: string[]): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  const code = await runCommandLine(words, {
    isTerminal: false,
    print: (text) => {
      stdout += text.endsWith('\n') ? text : `${text}\n`;
    },
    note: (text) => {
      stderr += `${text}\n`;
    },
    replace: () => undefined,
  });
  return { code, stdout, stderr };
}

function beginCommand(words: readonly string[]): RunningCommand {
  const child = spawn(process.execPath, [new URL('src/cli.ts', root).pathname, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
  return {
    ended,
    kill: (signal) => void child.kill(signal),
    says: async (text) => {
      while (!stdout.includes(text)) {
        if (child.exitCode !== null) throw new Error(`ended without saying "${text}": ${stdout}${stderr}`);
        await sleep(50);
      }
    },
  };
}

type Overrides = (world: World) => Partial<MigrationActivities>;

export interface ServiceInTest {
  readonly service: string;
  readonly taskQueue: string;
  readonly world: World;
  /** Words that start a run of it. */
  readonly start: readonly string[];
  readonly status: () => Promise<RunStatus>;
  /** Asks until the run waits at a gate. */
  readonly atGate: (gate: 'approval' | 'recovery') => Promise<RunStatus>;
}

/**
 * A service of its own with a worker that answers as scripted; the report is archived really, in the stack's object store.
 * The worker is gone when `work` ends.
 */
export async function withService<T>(
  cli: CliWorld,
  work: (service: ServiceInTest) => Promise<T>,
  overrides: Overrides = () => ({}),
  changes: Partial<Profile> = {},
): Promise<T> {
  const service = randomName('svc').replaceAll('_', '-');
  const taskQueue = randomName('queue');
  const profile = await writeProfile(cli, service);
  const database = randomName('db');
  const dependencies = {
    profilesDirectory: cli.profiles,
    stateDirectory: cli.profiles,
    client: cli.client,
    secrets: createSecretVault(),
  };
  const { world, activities } = scriptedActivities(
    (state) => ({
      inspectAccess: async () => ({
        production: identityOf(database),
        staging: identityOf(`${database}_staging`),
        scratch: identityOf(`${database}_scratch`),
        migratorRole: 'migrator',
        rights: [],
        tls: '',
        bucket: '',
        capacity: 'waived: enough for these tests',
      }),
      inspectProduction: async () => ({ ...production, identity: identityOf(database) }),
      archiveReport: archiveReport(dependencies),
      readLease: readLease(dependencies),
      ...overrides(state),
    }),
    { ...changes, backup: profile.backup, home: profile.home },
  );
  const connection = await NativeConnection.connect({ address: inject('stack').temporal.address });
  try {
    const worker = await Worker.create({
      connection,
      namespace: cli.namespace,
      taskQueue,
      workflowBundle: { code: await workflowCode() },
      activities: { ...activities },
      shutdownForceTime: '2 seconds',
    });
    const handle = cli.client.workflow.getHandle(workflowIdOf(service));
    const status = (): Promise<RunStatus> => handle.query<RunStatus>('status');
    const atGate: ServiceInTest['atGate'] = async (gate) => {
      for (;;) {
        const answer = await status().catch(() => undefined);
        if (answer?.waiting?.for === gate) return answer;
        if (answer?.outcome) throw new Error(`ended ${answer.outcome}: ${answer.trouble}`);
        await sleep(50);
      }
    };
    const start = ['start', service, '--task-queue', taskQueue, ...REQUEST];
    return await worker.runUntil(() => work({ service, taskQueue, world, start, status, atGate }));
  } finally {
    await connection.close();
  }
}

export const REQUEST = ['--tag', 'v1.1.0', '--ticket', 'CHG-1', '--by', 'dana@example.com'];
/** Of the plan that the scripted activities seal. */
export const DIGEST = 'ab'.repeat(32);

const identityOf = (database: string) => ({ ...scriptedIdentity, database });
const scriptedIdentity = {
  systemIdentifier: '7000000000000000001',
  oid: 16_384,
  timeline: 1,
  serverVersion: '18.6',
  serverMajor: 18,
  encoding: 'UTF8',
  sizeBytes: 1,
};

let code: Promise<string> | undefined;
function workflowCode(): Promise<string> {
  code ??= ensureBundle().then((path) => readFile(path, 'utf8'));
  return code;
}

/** The template's profile with the stack's object store, its credentials in files. */
async function writeProfile({ profiles }: CliWorld, service: string): Promise<Profile> {
  const { s3 } = inject('stack');
  const document = parseDocument(await readFile(new URL('config/profile-template.yaml', root), 'utf8'));
  document.set('service', service);
  const values = {
    bucket: s3.bucket,
    prefix: scriptedProfile.backup.prefix,
    region: s3.region,
    endpoint: s3.endpoint,
    forcePathStyle: true,
    accessKeyId: { file: 'access-key-id' },
    secretAccessKey: { file: 'secret-access-key' },
  };
  for (const [name, value] of Object.entries(values)) document.setIn(['backup', name], value);
  await writeFile(join(profiles, 'access-key-id'), s3.accessKeyId, { mode: 0o600 });
  await writeFile(join(profiles, 'secret-access-key'), s3.secretAccessKey, { mode: 0o600 });
  await writeFile(join(profiles, `${service}.yaml`), String(document));
  return (await loadProfile(profiles, service)).profile;
}

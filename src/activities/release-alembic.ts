import path from 'node:path';
import type { AlembicCommandOptions } from '../alembic/command.ts';
import { readGraph } from '../alembic/read-graph.ts';
import { pathWithPython, servicePython } from '../alembic/service-python.ts';
import { serviceEnvironment, serviceUrl } from '../alembic/service-url.ts';
import type { AlembicGraph } from '../contract/graph.ts';
import { refusal } from '../contract/errors.ts';
import type { RunFacts, StepInput } from '../contract/evidence/step.ts';
import type { AlembicProfile } from '../contract/profile.ts';
import { applicationPrefix } from '../postgres/connection.ts';
import type { ConnectionTarget } from '../postgres/connection-url.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { StepTools } from './activity-step.ts';
import { ensureReleaseCheckout } from './checkout.ts';
import type { ActivityDependencies } from './dependencies.ts';

/** Alembic of the release: in its checkout, with the service's Python and what its `env.py` needs to load. */
export interface ReleaseAlembic {
  readonly checkout: string;
  readonly python: string;
  readonly directory: string;
  readonly config: string;
  /** Without a database: see `environmentFor`. */
  readonly environment: Readonly<Record<string, string>>;
  /** The service's own command that loads its migrations. */
  readonly headsCommand: readonly string[] | undefined;
}

export async function releaseAlembic(
  deps: ActivityDependencies,
  input: StepInput,
  tools: StepTools,
): Promise<ReleaseAlembic> {
  const checkout = await ensureReleaseCheckout(deps, input, tools);
  const { alembic } = input.profile;
  const python = servicePython(checkout, alembic.python);
  const own = await deps.secrets.resolveAll(alembic.environment, input.profile, tools.signal);
  return {
    checkout,
    python,
    directory: path.resolve(checkout, alembic.directory),
    config: path.resolve(checkout, alembic.config),
    environment: { PATH: pathWithPython(checkout, alembic.python), [alembic.urlVariable]: nowhere(alembic), ...own },
    headsCommand: alembic.commands.heads,
  };
}

/**
 * Some services' settings insist on an address only to be imported, as revision files may do. This one gives way to that of a
 * database, and where there is none nothing is reached by it.
 */
const nowhere = ({ urlScheme }: AlembicProfile): string =>
  serviceUrl({ host: '127.0.0.1', port: 1, user: 'nobody', database: 'none', sslmode: 'prefer' }, urlScheme);

/** What lets the release's Alembic reach one database. Holds its password: for the child's environment only. */
export const environmentFor = (
  release: ReleaseAlembic,
  target: ConnectionTarget,
  alembic: AlembicProfile,
  run: RunFacts,
): Readonly<Record<string, string>> => ({
  ...release.environment,
  // Where the driver heeds it; the migrator's role tells its sessions apart in any case.
  PGAPPNAME: `${applicationPrefix(run.runId)}alembic`,
  ...serviceEnvironment(target, alembic),
});

export const commandFor = (
  release: ReleaseAlembic,
  environment: Readonly<Record<string, string>>,
  command: readonly string[] | undefined,
): Pick<AlembicCommandOptions, 'python' | 'directory' | 'config' | 'environment' | 'command'> => ({
  python: release.python,
  directory: release.directory,
  config: release.config,
  environment,
  ...(command && { command }),
});

/** @throws StepError `StepRefused` when the service's Python or its migrations cannot be loaded */
export async function releaseGraph(
  deps: ActivityDependencies,
  release: ReleaseAlembic,
  signal: AbortSignal,
): Promise<AlembicGraph> {
  try {
    return await readGraph({
      python: release.python,
      root: release.checkout,
      directory: release.directory,
      config: release.config,
      environment: release.environment,
      ...(release.headsCommand && { headsCommand: release.headsCommand }),
      signal,
      redactor: deps.secrets.redactor,
    });
  } catch (error) {
    if (error instanceof ProcessNotStarted || (error instanceof Error && error.name === 'GraphUnreadable')) {
      throw refusal([error.message]);
    }
    throw error;
  }
}

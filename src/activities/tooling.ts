import type { ToolingActivities } from '../contract/activities.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { StepInput } from '../contract/evidence.ts';
import type { AlembicGraph } from '../contract/graph.ts';
import type { Profile, SecretReference } from '../contract/profile.ts';
import { GraphUnreadable, readGraph } from '../alembic/read-graph.ts';
import { inspectPrograms, type PostgresPrograms } from '../archive/programs.ts';
import { withConnection } from '../postgres/connection.ts';
import { readIdentity } from '../postgres/identity.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import { collectSecretReferences } from '../profile/secret-references.ts';
import { runStep, type StepTools } from './activity-step.ts';
import { alembicService } from './alembic-service.ts';
import { ensureReleaseCheckout } from './checkout.ts';
import type { ActivityDependencies } from './dependencies.ts';

type Dependencies = Pick<ActivityDependencies, 'secrets' | 'stateDirectory'>;

export function createToolingActivities(dependencies: Dependencies): Pick<ToolingActivities, 'verifyTooling'> {
  return {
    verifyTooling: (input) =>
      runStep(dependencies.secrets, async (tools) => {
        const findings = new Findings();
        const secretsResolved = await resolveEverySecret(dependencies, input.profile, tools, findings);
        tools.progress({ phase: 'programs' });
        const programs = await findProgramsOfServer(dependencies, input, tools, findings);
        const graph = await findings.collect(() => loadAlembic(dependencies, input, tools));
        findings.throwIfAny();
        return {
          programs: Object.fromEntries(Object.values(programs ?? {}).map(({ name, version }) => [name, version])),
          alembic: graph?.alembic ?? '',
          sqlalchemy: graph?.sqlalchemy ?? '',
          python: graph?.python ?? '',
          secretsResolved,
        };
      }),
  };
}

/** What stands in the way, gathered so that one message names all of it. */
class Findings {
  readonly #texts: string[] = [];
  #passing = true;

  add(text: string): void {
    this.#texts.push(text);
    this.#passing = false;
  }

  /** The result, or undefined with the failure noted. Errors nobody foresaw go through. */
  async collect<T>(work: () => Promise<T>, prefix = ''): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      this.#texts.push(`${prefix}${error.message}`);
      if (error.type !== STEP_ERRORS.unavailable) this.#passing = false;
      return undefined;
    }
  }

  /** As long as everything may pass by itself, another try is worth it. */
  throwIfAny(): void {
    if (this.#texts.length === 0) return;
    const all = refusal(this.#texts);
    throw this.#passing ? new StepError(STEP_ERRORS.unavailable, all.message, all.details) : all;
  }
}

/** @returns how many different references there are */
async function resolveEverySecret(
  { secrets }: Dependencies,
  profile: Profile,
  { signal, progress }: StepTools,
  findings: Findings,
): Promise<number> {
  const places = new Map<string, { readonly reference: SecretReference; readonly path: string }>();
  for (const { path, reference } of collectSecretReferences(profile)) {
    const key = JSON.stringify(reference);
    if (!places.has(key)) places.set(key, { reference, path });
  }
  let done = 0;
  for (const { path, reference } of places.values()) {
    progress({ phase: 'secrets', resolved: done, of: places.size });
    const value = await findings.collect(() => secrets.resolve(reference, profile, signal), `${path}: `);
    if (value !== undefined) done += 1;
  }
  return done;
}

async function findProgramsOfServer(
  { secrets }: Dependencies,
  { run, profile }: StepInput,
  { signal }: StepTools,
  findings: Findings,
): Promise<PostgresPrograms | undefined> {
  const serverMajor = await findings.collect(async () => {
    const url = await ifResolved(secrets.resolve(profile.databases.production.backup, profile, signal));
    if (url === undefined) return undefined;
    return withConnection(url, { runId: run.runId, step: 'tooling.verify', signal }, async (client) => {
      const { serverMajor: major } = await readIdentity(client);
      return major;
    });
  });
  const inspected = await inspectPrograms(profile, {
    signal,
    redactor: secrets.redactor,
    ...(serverMajor === undefined ? {} : { serverMajor }),
  });
  for (const finding of inspected.findings) findings.add(finding);
  return inspected.programs;
}

/** A secret that does not resolve has been named already. */
async function ifResolved<T>(value: Promise<T>): Promise<T | undefined> {
  try {
    return await value;
  } catch (error) {
    if (error instanceof StepError) return undefined;
    throw error;
  }
}

async function loadAlembic(
  dependencies: Dependencies,
  input: StepInput,
  tools: StepTools,
): Promise<AlembicGraph | undefined> {
  const { secrets } = dependencies;
  const { profile } = input;
  const environment = await ifResolved(secrets.resolveAll(profile.alembic.environment, profile, tools.signal));
  if (environment === undefined) return undefined;
  const checkout = await ensureReleaseCheckout(dependencies, input, tools);
  tools.progress({ phase: 'alembic' });
  try {
    return await readGraph({
      ...alembicService(profile.alembic, checkout),
      root: checkout,
      environment,
      signal: tools.signal,
      redactor: secrets.redactor,
    });
  } catch (error) {
    if (!(error instanceof GraphUnreadable) && !(error instanceof ProcessNotStarted)) throw error;
    throw new StepError(STEP_ERRORS.refused, `Alembic does not load at ${input.run.releaseTag}: ${error.message}`);
  }
}

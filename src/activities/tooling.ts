import type { ToolingActivities } from '../contract/activities.ts';
import { refusal, STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { StepInput } from '../contract/evidence/step.ts';
import type { AlembicGraph } from '../contract/graph.ts';
import type { Profile, SecretReference } from '../contract/profile.ts';
import { inspectPrograms, type PostgresPrograms } from '../archive/programs.ts';
import { trySignatures } from '../integrations/ssh-signature-trial.ts';
import { withConnection } from '../postgres/connection.ts';
import { readIdentity } from '../postgres/identity.ts';
import { collectSecretReferences } from '../profile/secret-references.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { releaseAlembic, releaseGraph } from './release-alembic.ts';

export function createToolingActivities(dependencies: ActivityDependencies): Pick<ToolingActivities, 'verifyTooling'> {
  return {
    verifyTooling: (input) =>
      runStep(dependencies.secrets, async (tools) => {
        const findings = new Findings();
        const secretsResolved = await resolveEverySecret(dependencies, input.profile, tools, findings);
        tools.progress({ phase: 'programs' });
        const programs = await findProgramsOfServer(dependencies, input, tools, findings);
        await findings.collect(() => verifySignatures(dependencies, input.profile, tools), 'approvals.signers: ');
        const graph = await findings.collect(
          () => loadAlembic(dependencies, input, tools),
          `Alembic at ${input.run.releaseTag}: `,
        );
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
  { secrets }: ActivityDependencies,
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
  { secrets }: ActivityDependencies,
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

/** Whoever may sign must not learn at the gate, at night, that nobody can read the signature. */
async function verifySignatures(
  { secrets }: ActivityDependencies,
  { approvals }: Profile,
  { signal }: StepTools,
): Promise<void> {
  if (approvals.signers.length === 0 && approvals.signatures === 'optional') return;
  await trySignatures({ signal, redactor: secrets.redactor });
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
  dependencies: ActivityDependencies,
  input: StepInput,
  tools: StepTools,
): Promise<AlembicGraph | undefined> {
  const { environment } = input.profile.alembic;
  const known = await ifResolved(dependencies.secrets.resolveAll(environment, input.profile, tools.signal));
  if (known === undefined) return undefined;
  const release = await releaseAlembic(dependencies, input, tools);
  tools.progress({ phase: 'alembic' });
  return releaseGraph(dependencies, release, tools.signal);
}

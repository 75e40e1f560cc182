import { downgradePlan } from '../../alembic/downgrade-plan.ts';
import { rowsAtTarget } from '../../alembic/reconcile.ts';
import { fetchLedger } from '../../archive/stored-backup.ts';
import type { RehearsalActivities } from '../../contract/activities.ts';
import { STEP_ERRORS, StepError } from '../../contract/errors.ts';
import type {
  DeployedTrial,
  RehearsalTrial,
  RehearsalTrialInput,
  StaticFinding,
} from '../../contract/evidence/rehearsal.ts';
import { lintStatements } from '../../lint/squawk.ts';
import { applicationPrefix } from '../../postgres/connection.ts';
import { type ConnectionTarget, inDatabase, parseConnectionUrl } from '../../postgres/connection-url.ts';
import { serializeObjectMap } from '../../postgres/catalog/object-map.ts';
import { compareMaps, inProductionsNames, namesOf } from '../../postgres/catalog/object-map-change.ts';
import { tryDeployedRelease } from '../../rehearsal/deployed.ts';
import { ProgramLog } from '../../process/program-log.ts';
import { rehearsalEnvironment, withheldText } from '../../rehearsal/environment.ts';
import { rehearsalTarget } from '../../rehearsal/login.ts';
import { withTrialCopy } from '../../rehearsal/scratch.ts';
import type { ImitatedRole, ScratchWorld } from '../../rehearsal/scratch-world.ts';
import { rehearse } from '../../rehearsal/trial.ts';
import type { TrialDowngrade, TrialResult, UpgradedCopy } from '../../rehearsal/trial-request.ts';
import { confidential } from '../../staging/confidential.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { integrationContext, secretAccess } from '../integration-context.ts';
import { productionRoles, scratchWorld } from './rehearsal-world.ts';
import { type ReleaseAlembic, releaseAlembic, releaseGraph } from '../release-alembic.ts';
import { type RunStore, withRunStore } from '../run-store.ts';

/**
 * The upgrade and its undo on a fresh copy of the restored database: every attempt begins anew, so nothing of an earlier one
 * is looked at.
 *
 * @throws StepError `CheckFailed` when the upgrade fails, smoke SQL says no, the linter finds what the profile refuses, or the
 *   deployed release, where the profile requires it, does not work on the upgraded copy
 */
export const rehearseMigration =
  (deps: ActivityDependencies): RehearsalActivities['rehearseMigration'] =>
  (input) =>
    runStep(deps.secrets, (tools) =>
      withRunStore(deps.secrets, input, tools.signal, async (store) => {
        const trial = await prepare(deps, input, tools, store);
        return withTrialCopy(trial.world, { of: input.restore.database, purpose: 'trial' }, (copy) =>
          tryOn(deps, input, tools, { ...trial, copy }),
        );
      }),
    );

interface Prepared {
  readonly store: RunStore;
  readonly world: ScratchWorld;
  readonly release: ReleaseAlembic;
  readonly roles: { readonly migrator: ImitatedRole; readonly application: ImitatedRole };
  readonly downgrade: TrialDowngrade;
}

async function prepare(
  deps: ActivityDependencies,
  input: RehearsalTrialInput,
  tools: StepTools,
  store: RunStore,
): Promise<Prepared> {
  tools.progress({ phase: 'prepare' });
  const release = await releaseAlembic(deps, input, tools);
  return {
    store,
    world: await scratchWorld(deps, input, tools.signal),
    release,
    roles: await productionRoles(deps, input, tools.signal),
    downgrade: await plannedDowngrade(deps, input, release, tools.signal),
  };
}

/** The evidence has the commands; the release's own graph tells the version rows after each of them. */
async function plannedDowngrade(
  deps: ActivityDependencies,
  { graph: plan }: RehearsalTrialInput,
  release: ReleaseAlembic,
  signal: AbortSignal,
): Promise<TrialDowngrade> {
  const { downgrade, startRevisions } = plan;
  if (downgrade.kind === 'impossible') return downgrade;
  const graph = await releaseGraph(deps, release, signal);
  const known = downgradePlan(graph, rowsAtTarget(startRevisions, plan), startRevisions);
  if (known.kind === 'planned' && known.commands.map(({ argument }) => argument).join() === downgrade.commands.join()) {
    return known;
  }
  const last = downgrade.commands.length - 1;
  return {
    kind: 'planned',
    commands: downgrade.commands.map((argument, index) => ({
      argument,
      rowsAfter: index === last ? startRevisions : null,
    })),
  };
}

async function tryOn(
  deps: ActivityDependencies,
  input: RehearsalTrialInput,
  tools: StepTools,
  trial: Prepared & { readonly copy: ConnectionTarget },
): Promise<RehearsalTrial> {
  const { run, profile, backup, graph, restore } = input;
  const { store, world, release, roles, copy } = trial;
  const login = await rehearsalTarget(world, { copy: copy.database, as: roles.migrator });
  const access = secretAccess(deps, input, tools.signal);
  const environment = await rehearsalEnvironment(profile, release.checkout, login.target, access);
  const identity = await deps.secrets.resolve(profile.backup.identity, profile, tools.signal);
  const { contents } = await fetchLedger(store.store, backup, identity, tools.signal);
  const log = new ProgramLog();
  const name = (file: string): string => `rehearsal/${input.step}/${file}`;
  const keepLog = () => store.archive(name('alembic.log'), log.text, 'text/plain');
  let findings: readonly StaticFinding[] = [];
  const withheld = withheldText(environment);
  const unknown = [...restore.unknown, ...login.differences, ...sharedText(environment.shared), ...withheld];
  try {
    const result = await rehearse({
      alembic: {
        ...release,
        commands: profile.alembic.commands,
        versionTable: profile.alembic.versionTable,
        environment: { ...environment.migration, PGAPPNAME: `${applicationPrefix(run.runId)}alembic` },
      },
      copy,
      pristine: inDatabase(parseConnectionUrl(world.url), restore.database),
      plan: { ...graph, downgrade: trial.downgrade },
      recorded: contents,
      smoke: profile.rehearsal.smoke,
      jobs: profile.restore.jobs,
      session: { runId: run.runId, step: world.step, signal: tools.signal },
      redactor: deps.secrets.redactor.with([...confidential(environment.migration), login.target.password ?? '']),
      tryUpgraded: async (upgraded) => {
        const linted = await lint(deps, input, tools, upgraded);
        findings = linted.findings;
        unknown.push(...linted.unknown);
        return tryDeployed(deps, input, tools, trial);
      },
      onLine: (stream, line) => log.line(stream, line),
      progress: (now) => tools.progress({ ...now }),
    });
    const rehearsed = requireUpgraded(result, [...withheld, ...login.differences]);
    const { footprint, mapBefore, mapAfter, upgrade, ...facts } = rehearsed;
    const names = { copy: login.target.user, production: roles.migrator.name };
    return {
      ...facts,
      at: new Date().toISOString(),
      upgrade: { ...upgrade, document: await store.record(name('footprint.json'), JSON.stringify(footprint)) },
      mapBefore: await store.record(name('objects-before.json'), serializeObjectMap(mapBefore)),
      mapAfter: await store.record(name('objects-after.json'), serializeObjectMap(mapAfter)),
      schemaChange: namesOf(inProductionsNames(compareMaps(mapBefore, mapAfter), names)),
      imitated: { login: names.copy, role: names.production, differences: login.differences },
      findings: bounded(findings),
      unknown: [...facts.unknown, ...unknown, ...deployedText(facts.deployed)],
      log: await keepLog(),
    };
  } catch (error) {
    // What Alembic said is wanted all the more when it failed; the failure itself must not be hidden by the store's.
    if (!tools.signal.aborted) await keepLog().catch(() => undefined);
    throw error;
  }
}

type RehearsedResult = Omit<Extract<TrialResult, { kind: 'rehearsed' }>, 'kind'>;

function requireUpgraded(result: TrialResult, withheld: readonly string[]): RehearsedResult {
  if (result.kind === 'rehearsed') {
    const { kind: _kind, ...rehearsed } = result;
    return rehearsed;
  }
  const { revision, why, leaves } = result;
  const where = revision === null ? '' : ` at revision ${revision}`;
  const left = leaves.length === 0 ? '' : ` It would leave behind: ${leaves.slice(0, 5).join('; ')}.`;
  // What failed may have needed what it was not given: then it is the profile that is to be mended.
  const [verb, mend] =
    withheld.length === 0
      ? ['so production would too', 'Mend the release']
      : ['and production may', `Unknown is ${withheld.join('; ').slice(0, 600)}. Mend the profile or the release`];
  throw new StepError(
    STEP_ERRORS.checkFailed,
    `the upgrade fails${where} on a copy of the backup, ${verb}: ${why.slice(0, 1000)}.${left} ${mend}, then start a new run`,
    { revision, why, leaves },
  );
}

/** Entries that the plan and the history hold. */
const FINDINGS = 100;

const bounded = (findings: readonly StaticFinding[]): readonly StaticFinding[] => findings.slice(0, FINDINGS);

async function lint(
  deps: ActivityDependencies,
  { profile, backup }: RehearsalTrialInput,
  { signal, progress }: StepTools,
  { statements }: UpgradedCopy,
): Promise<{ readonly findings: readonly StaticFinding[]; readonly unknown: readonly string[] }> {
  progress({ phase: 'linting' });
  const linted = await lintStatements({
    ...profile.lint,
    serverMajor: backup.database.serverMajor,
    statements,
    signal,
    redactor: deps.secrets.redactor,
  });
  if (linted.kind === 'not-linted') {
    return { findings: [], unknown: [`what a linter says about the SQL: ${linted.why}`] };
  }
  const refused = linted.findings.filter(({ level }) => level === 'refused');
  if (refused.length > 0) {
    const texts = refused.map(
      ({ rule, revision, statement, message }) =>
        `${rule}${revision === null ? '' : `, revision ${revision}`}: ${message} (${statement.slice(0, 150)})`,
    );
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `the SQL of the upgrade is refused by lint.refuse of the profile: ${texts.slice(0, 5).join('; ')}${texts.length > 5 ? ` and ${texts.length - 5} more` : ''}`,
      { findings: texts.slice(0, FINDINGS) },
    );
  }
  return { findings: linted.findings, unknown: [] };
}

async function tryDeployed(
  deps: ActivityDependencies,
  input: RehearsalTrialInput,
  tools: StepTools,
  { world, roles, copy }: Prepared & { readonly copy: ConnectionTarget },
): Promise<DeployedTrial> {
  const deployed = await tryDeployedRelease({
    world,
    upgraded: copy.database,
    application: roles.application,
    context: integrationContext(deps, input, tools),
    stateDirectory: deps.stateDirectory,
    progress: (now) => tools.progress({ ...now }),
  });
  if (deployed.kind === 'failed' && input.profile.application.deployed?.required !== false) {
    throw new StepError(
      STEP_ERRORS.checkFailed,
      `the deployed release ${deployed.release} does not work on the upgraded copy, and it will run on it in production until the new one is deployed: ${deployed.why}. Make the migration compatible with it, or say required: false in application.deployed`,
      { deployed },
    );
  }
  return deployed;
}

const deployedText = (deployed: DeployedTrial): readonly string[] =>
  deployed.kind === 'not-tried' ? [`whether the deployed release works on the upgraded database: ${deployed.why}`] : [];

const sharedText = (names: readonly string[]): readonly string[] =>
  names.length === 0
    ? []
    : [
        `what the migration touches outside the database: the rehearsal had production’s own ${names.join(', ')} (give rehearsal.environment)`,
      ];

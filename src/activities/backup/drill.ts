import type { DrillActivities } from '../../contract/activities.ts';
import { refusal, StepError } from '../../contract/errors.ts';
import type { BackupManifest } from '../../contract/evidence/backup.ts';
import type { DrillInput, DrillRestore, PrepareDrillInput, PreparedDrill } from '../../contract/evidence/drill.ts';
import type { StepInput } from '../../contract/evidence/step.ts';
import type { Profile } from '../../contract/profile.ts';
import { serviceFolder } from '../../archive/backup-names.ts';
import { drillKey, drillRecord } from '../../archive/drill-record.ts';
import { findManifest, listManifests } from '../../archive/manifest.ts';
import type { ObjectStore } from '../../archive/object-store.ts';
import { dropCopies, type ScratchServerAccess } from '../../postgres/restore/scratch-copy.ts';
import { loadProfile } from '../../profile/load.ts';
import { runStep, type StepTools } from '../activity-step.ts';
import type { ActivityDependencies } from '../dependencies.ts';
import { withRunStore } from '../run-store.ts';
import { restoreOnScratch } from './scratch-restore.ts';

type Needed = Pick<ActivityDependencies, 'profilesDirectory' | 'secrets'>;

/** A drill that lasts longer than this is running still, and its database is left alone for that. */
const EXPIRES_AFTER = 24 * 60 * 60 * 1000;

const RESTORE = 'drill.restore';
const DROP = 'drill.drop';

/** The activities of the workflow `restoreDrill`. */
export function createDrillActivities(dependencies: Needed): DrillActivities {
  const { secrets } = dependencies;
  return {
    prepareDrill: (input) => runStep(secrets, (tools) => prepare(dependencies, input, tools)),

    restoreOnScratch: (input) => runStep(secrets, (tools) => restore(dependencies, input, tools)),

    dropScratchDatabase: (input) =>
      runStep(secrets, async ({ signal }) => {
        const access = await scratchServer(dependencies, input, DROP, signal);
        return { dropped: await dropCopies(access, { service: input.run.service, kind: 'drill' }) };
      }),

    recordDrill: (input) =>
      runStep(secrets, ({ signal }) =>
        withRunStore(secrets, input, signal, async ({ store }) => {
          const key = drillKey(input);
          const record = drillRecord(input, new Date().toISOString(), store.uri(key));
          const text = secrets.redactor.redact(`${JSON.stringify(record, null, 2)}\n`);
          await store.put(key, text, 'application/json', signal);
          return record;
        }),
      ),
  };
}

/** Everything that is wrong with a request, in one refusal. */
async function prepare(
  { profilesDirectory, secrets }: Needed,
  { service, requestedBy, workflowId, runId, backup, findings: given }: PrepareDrillInput,
  { signal }: StepTools,
): Promise<PreparedDrill> {
  const findings = [...given];
  const profile = await loadOrFindings(profilesDirectory, service, findings);
  if (profile === undefined) throw refusal(findings);
  const facts = { runId, workflowId, service, requestedBy, releaseTag: '', changeTicket: '' };
  const manifest = await withRunStore(secrets, { run: facts, profile }, signal, ({ store }) =>
    chooseBackup(store, profile, backup, findings, signal),
  );
  if (manifest === undefined || findings.length > 0) throw refusal(findings);
  const { releaseTag, changeTicket } = manifest;
  return { profile, manifest, run: { ...facts, releaseTag, changeTicket } };
}

async function loadOrFindings(directory: string, service: string, findings: string[]): Promise<Profile | undefined> {
  try {
    return (await loadProfile(directory, service)).profile;
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    const named = error.details['findings'];
    findings.push(...(Array.isArray(named) ? named.map(String) : [error.message]));
    return undefined;
  }
}

/** The one asked for, else the latest that was verified. */
async function chooseBackup(
  store: ObjectStore,
  { backup, service }: Profile,
  uri: string | undefined,
  findings: string[],
  signal: AbortSignal,
): Promise<BackupManifest | undefined> {
  if (uri !== undefined) {
    const manifest = await findManifest(store, uri, signal);
    if (manifest.service !== service) findings.push(`${uri} is a backup of ${manifest.service}, not of ${service}`);
    return manifest;
  }
  const folder = `${serviceFolder(backup, service)}/`;
  const unreadable: string[] = [];
  const below = await listManifests(store, folder, signal, (finding) => unreadable.push(finding));
  if (unreadable.length > 0) {
    // One that cannot be read may be the latest: a drill of an older one would hide that.
    findings.push(...unreadable.slice(0, 10), 'delete what is damaged, or name the backup to be restored');
    return undefined;
  }
  // The prefix of another service may lead below this folder.
  const manifests = below.filter((manifest) => manifest.service === service);
  const latest = manifests.find(({ verified }) => verified !== undefined);
  if (latest === undefined) {
    findings.push(
      manifests.length === 0
        ? `there is no backup below ${store.uri(folder)}: every run takes one`
        : `none of the ${manifests.length} backups below ${store.uri(folder)} has been verified: runbook backup verify latest --service ${service} --record`,
    );
  }
  return latest;
}

async function restore(dependencies: Needed, input: DrillInput, tools: StepTools): Promise<DrillRestore> {
  const { run, manifest } = input;
  const { service, workflowId } = run;
  const access = await scratchServer(dependencies, input, RESTORE, tools.signal);
  const expiresAt = new Date(Date.now() + EXPIRES_AFTER).toISOString();
  const world = { ...access, service, workflowId, expiresAt };
  const { backup } = manifest;
  const { database, server, restored } = await restoreOnScratch(
    dependencies,
    input,
    { world, kind: 'drill', backup },
    tools,
  );
  return { database, server, restored };
}

async function scratchServer(
  { secrets }: Needed,
  { run, profile }: StepInput,
  step: string,
  signal: AbortSignal,
): Promise<ScratchServerAccess> {
  const url = await secrets.resolve(profile.databases.scratch.administrator, profile, signal);
  return { url, runId: run.runId, step, signal };
}

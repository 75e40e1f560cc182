/** Production is changed by somebody's hand while the plan waits for its approval: the upgrade does not start. */
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { WorkflowHandle } from '@temporalio/client';
import type { ProofCase } from '../../scripts/proof.ts';
import { atGate, endWithoutDecision, startMigration, until } from '../../scripts/scenarios/driving.ts';
import { compareWithReality, onProduction, takePicture } from '../../scripts/scenarios/reality.ts';
import { type Session, withSession } from '../../scripts/scenarios/session.ts';
import { resetExample } from '../../scripts/stack/example.ts';
import type { RunStatus, StepRecord } from '../../src/contract/status.ts';

export const sentence =
  'production changed between rehearsal and apply: refused before the upgrade, with the difference';

interface Drift {
  readonly name: string;
  readonly sql: string;
  /** What the run must say. */
  readonly says: RegExp;
}

const DRIFTS: readonly Drift[] = [
  {
    name: 'a column added',
    sql: 'ALTER TABLE public.recordings ADD COLUMN added_by_hand text',
    says: /added column public\.recordings\.added_by_hand/,
  },
  {
    name: 'an index dropped, a type changed',
    sql: `DROP INDEX public.recordings_status_uploaded_at_idx;
          ALTER TABLE public.api_keys ALTER COLUMN label TYPE varchar(999)`,
    says: /removed index public\.recordings_status_uploaded_at_idx.*changed column public\.api_keys\.label: .* -> character varying\(999\)/,
  },
  {
    name: 'a version row changed',
    sql: `UPDATE public.alembic_version SET version_num = '0001_recordings'`,
    says: /0001_recordings/,
  },
];

export const run = (say: (line: string) => void): Promise<readonly ProofCase[]> =>
  withSession({ name: 'proof-drift', say }, async (session) => {
    const cases: ProofCase[] = [];
    for (const drift of DRIFTS) {
      say(drift.name);
      cases.push(await driftBeforeApply(session, drift));
      say(`${drift.name}: ${cases.at(-1)?.detail ?? ''}`);
    }
    return cases;
  });

async function driftBeforeApply(session: Session, { name, sql, says }: Drift): Promise<ProofCase> {
  const { example } = session;
  await resetExample(example);
  // A proof that was broken off may have left them on, and a run puts back what it found.
  for (const file of await readdir(switchesOf(session))) await rm(path.join(switchesOf(session), file));
  const handle = await startMigration(session, { releaseTag: 'v1.1.0' });
  const { waiting } = await until(handle, atGate('approval'));
  const planDigest = waiting?.for === 'approval' ? waiting.planDigest : '';
  await onProduction(example, (client) => client.query(sql));
  // Nothing but the hand's own change may be found at the end.
  const before = await takePicture(example);
  await handle.executeUpdate('approve', { args: [{ by: 'erin@example.com', planDigest }] as never });
  const { outcome, findings = [] } = await endWithoutDecision(handle);
  const said = [...findings, (await handle.query<RunStatus>('status')).trouble ?? ''].join('; ');
  const wrong = [
    ...(outcome === 'aborted' ? [] : [`ended ${outcome}`]),
    ...(says.test(said) ? [] : [`the difference is not named: ${said.slice(0, 300)}`]),
    ...(await upgradesOf(handle)),
    ...(await notPutBack(session, handle)),
    ...(await compareWithReality(example, { outcome: 'aborted', before, loaded: before, targetRevision: '' })),
  ];
  return {
    name,
    passed: wrong.length === 0,
    detail: wrong.length === 0 ? `aborted: ${said.slice(0, 300)}` : wrong.slice(0, 3).join('; '),
  };
}

/** Steps of the upgrade that were begun: there must be none. */
async function upgradesOf(handle: WorkflowHandle): Promise<string[]> {
  const timeline = await handle.query<readonly StepRecord[]>('timeline');
  return timeline.filter(({ id }) => id.startsWith('apply.upgrade')).map(({ id }) => `${id} was begun`);
}

/** By the run's own word, and by what the switches of the example say. */
async function notPutBack(session: Session, handle: WorkflowHandle): Promise<string[]> {
  const { obligations } = await handle.query<RunStatus>('status');
  const engaged = await readdir(switchesOf(session));
  return [
    ...obligations
      .filter(({ status }) => status !== 'released')
      .map(({ name, status }) => `obligation ${name} is ${status}`),
    ...engaged.map((name) => `${name} is still switched on`),
    ...(obligations.some(({ kind }) => kind === 'fence') ? [] : ['the fence was never up']),
  ];
}

/** A file for each switch that is on. */
const switchesOf = ({ example }: Session): string => path.join(example.directory, 'switches');

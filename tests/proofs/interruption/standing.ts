/** Where an interrupted upgrade stands, read by plain SQL: nothing here uses the object map or what the run has written down. */
import type { Client } from 'pg';
import type { Evaluation } from '../../../src/contract/evidence/rollback.ts';

export interface Standing {
  readonly versionRows: readonly string[];
  readonly invalidIndexes: readonly string[];
  /** Those of tables. */
  readonly notValidated: readonly string[];
  /** `table.column` of all tables in `public`, and names of valid indexes. */
  readonly shape: string;
}

export async function readStanding(client: Client): Promise<Standing> {
  const list = async (sql: string): Promise<readonly string[]> =>
    (await client.query<{ name: string }>(sql)).rows.map(({ name }) => name).sort();
  return {
    versionRows: await list('SELECT version_num AS name FROM public.alembic_version'),
    invalidIndexes: await list('SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid'),
    notValidated: await list(
      `SELECT conrelid::regclass || '.' || conname AS name FROM pg_constraint WHERE NOT convalidated`,
    ),
    shape: (
      await list(
        `SELECT table_name || '.' || column_name AS name FROM information_schema.columns WHERE table_schema = 'public'
         UNION ALL SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
         WHERE indisvalid AND c.relnamespace = 'public'::regnamespace`,
      )
    ).join(),
  };
}

/** What is wrong with an evaluation, given what was there before the upgrade, when it had stopped, and after the evaluation. */
export function judgeEvaluation(
  evaluation: Evaluation,
  {
    before,
    stopped,
    after,
    path,
  }: Record<'before' | 'stopped' | 'after', Standing> & { readonly path: readonly string[] },
): string[] {
  const { reality } = evaluation;
  const applied = path.slice(0, path.findIndex((revision) => stopped.versionRows.includes(revision)) + 1);
  const expected =
    applied.length === 0 ? 'unchanged' : applied.length === path.length ? 'fully-applied' : 'partly-applied';
  const findings: string[] = [];
  const compare = (what: string, told: readonly string[], read: readonly string[]): void => {
    if ([...told].sort().join() !== [...read].sort().join())
      findings.push(`${what}: told ${told.join(', ') || 'none'}, there was ${read.join(', ') || 'none'}`);
  };
  if (reality.kind !== expected) findings.push(`told ${JSON.stringify(reality)}, it was ${expected}`);
  if (reality.kind === 'partly-applied') {
    compare('revisions', reality.revisions, applied);
    if (reality.clean !== 'yes') findings.push(`told it is not clean: ${reality.why}`);
  }
  compare('version rows', evaluation.versionRows, stopped.versionRows);
  compare('leftovers', evaluation.leftovers, [
    ...stopped.invalidIndexes.map((name) => `index public.${name} (invalid)`),
    ...stopped.notValidated
      .filter((name) => !before.notValidated.includes(name))
      .map((name) => `constraint public.${name} (not validated)`),
  ]);
  compare(
    'dropped indexes',
    evaluation.droppedInvalidIndexes,
    stopped.invalidIndexes.map((name) => `public.${name}`),
  );
  if (after.invalidIndexes.length > 0) findings.push(`still invalid: ${after.invalidIndexes.join(', ')}`);
  if (after.shape !== stopped.shape) findings.push('the evaluation has changed more than invalid indexes');
  if (applied.length === 0 && stopped.shape !== before.shape) findings.push('production was not unchanged');
  return findings;
}

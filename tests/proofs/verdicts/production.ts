/** Production of one chain: what it is, its upgrade and its way back by the real code, and what differs afterwards. */
import { readdir } from 'node:fs/promises';
import type { AlembicCommandFacts, AlembicCommandOptions } from '../../../src/alembic/command.ts';
import { downgrade } from '../../../src/alembic/downgrade.ts';
import { upgrade } from '../../../src/alembic/upgrade.ts';
import { type DatabaseVersion, readVersion } from '../../../src/alembic/version-table.ts';
import { commandFor, environmentFor, releaseAlembic } from '../../../src/activities/release-alembic.ts';
import type { GraphEvidence } from '../../../src/contract/evidence/tooling.ts';
import { captureObjectMap, type ObjectMap, withoutTable } from '../../../src/postgres/catalog/object-map.ts';
import { withConnection } from '../../../src/postgres/connection.ts';
import { parseConnectionUrl } from '../../../src/postgres/connection-url.ts';
import { compareContents, type DatabaseContents, readContents } from '../../../src/postgres/contents/contents.ts';
import { qualifiedName } from '../../../src/postgres/identifier.ts';
import { objectDifferences } from '../../../src/rehearsal/object-difference.ts';
import type { Chain } from '../../fixtures/verdicts/chain.ts';
import { dependencies, redactor, type Service, signal, versionTableOf, type World } from './world.ts';

/** All that a way back has to bring back. */
export interface State {
  /** Without Alembic's version table, as the contents. */
  readonly objects: ObjectMap;
  readonly contents: DatabaseContents;
  readonly versionRows: readonly string[];
  readonly files: readonly string[];
}

export async function readProduction(world: World, service: Service, like?: State): Promise<State> {
  const { chain, database, run, files } = service;
  const session = { runId: run.runId, step: 'proof', signal };
  return withConnection(world.url('superuser', database), session, async (client) => {
    const version = await readVersion(client, versionTableOf(chain));
    const objects = withoutTable(await captureObjectMap(client), versionTableOf(chain));
    const contents = await readContents([client], {
      sampleAbove: Number.POSITIVE_INFINITY,
      ...(like && { like: like.contents }),
    });
    return {
      objects,
      contents: withoutRowsOf(chain, contents),
      versionRows: rowsOf(version),
      files: (await readdir(files.production)).toSorted(),
    };
  });
}

const rowsOf = (version: DatabaseVersion): readonly string[] => (version.kind === 'versioned' ? version.rows : []);

const withoutRowsOf = (chain: Chain, contents: DatabaseContents): DatabaseContents => {
  const { schema, table } = versionTableOf(chain);
  const name = qualifiedName(schema, table);
  return { ...contents, tables: contents.tables.filter((entry) => entry.table !== name) };
};

/** In words; empty = equal. */
export const differences = (before: State, after: State): readonly string[] => [
  ...objectDifferences(before.objects, after.objects),
  ...compareContents(before.contents, after.contents),
  ...(before.versionRows.join() === after.versionRows.join()
    ? []
    : [
        `version rows ${before.versionRows.join(', ') || 'none'} before, ${after.versionRows.join(', ') || 'none'} after`,
      ]),
  ...(before.files.join() === after.files.join()
    ? []
    : [`files ${before.files.join(', ')} before, ${after.files.join(', ')} after`]),
];

/** How one of the service's commands is run in production. */
async function alembicOf(
  world: World,
  { profile, run, database }: Service,
  verb: 'upgrade' | 'downgrade',
): Promise<AlembicCommandOptions> {
  const tools = { signal, progress: () => undefined, attempt: 1 };
  const release = await releaseAlembic(dependencies(world), { run, profile }, tools);
  const target = parseConnectionUrl(world.url('migrator', database));
  const environment = environmentFor(release, target, profile.alembic, run);
  return { ...commandFor(release, environment, profile.alembic.commands[verb]), signal, redactor };
}

/** @throws Error when a command does not end with code 0 */
export async function upgradeProduction(
  world: World,
  service: Service,
  { targetRevisions }: GraphEvidence,
): Promise<void> {
  const options = await alembicOf(world, service, 'upgrade');
  for (const revision of targetRevisions) {
    const facts = await upgrade({ ...options, target: revision });
    if (!wentThrough(facts)) throw new Error(`production's upgrade failed: ${saidBy(facts)}`);
  }
}

/** @returns what the command that failed said; null = all went through */
export async function rollBackProduction(
  world: World,
  service: Service,
  commands: readonly string[],
): Promise<string | null> {
  const done = await downgrade({
    ...(await alembicOf(world, service, 'downgrade')),
    commands: commands.map((argument) => ({ argument })),
  });
  const failed = done.find((facts) => !wentThrough(facts));
  return failed === undefined ? null : saidBy(failed);
}

const wentThrough = ({ result }: AlembicCommandFacts): boolean => result.kind === 'exited' && result.code === 0;

const saidBy = ({ command, result }: AlembicCommandFacts): string =>
  `${command}: ${(result.stderrTail || result.stdoutTail).trim().slice(-400)}`;

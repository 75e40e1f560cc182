import { cp } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { downgradePlan } from '../../src/alembic/downgrade-plan.ts';
import { resolveTarget, unknownRevisions } from '../../src/alembic/graph.ts';
import { isHiddenGraph } from '../../src/alembic/hidden-graph.ts';
import { readGraph } from '../../src/alembic/read-graph.ts';
import { rowsAlongPath, upgradePaths } from '../../src/alembic/upgrade-path.ts';
import type { AlembicGraph } from '../../src/contract/graph.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import type { Chain } from '../fixtures/verdicts/chain.ts';
import { GRAPHS } from '../fixtures/verdicts/graphs.ts';
import { SURROUNDINGS } from '../fixtures/verdicts/surroundings.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const { venv } = useStack();
const fixtures = dirname(fileURLToPath(new URL('../fixtures/verdicts/chains.ts', import.meta.url)));

let root: string;
beforeAll(async () => {
  root = await temporaryDirectory('verdict-chains');
  await cp(fixtures, root, { recursive: true });
});

function graphOf({ name, folder = name, alembic }: Chain): Promise<AlembicGraph> {
  const directory = join(root, folder);
  const environment = Object.entries(alembic?.environment ?? {}).map(([key, value]) => [
    key,
    value.replaceAll('{folder}', directory).replaceAll('{files}', directory),
  ]);
  return readGraph({
    python: venv.python,
    root,
    directory,
    config: 'alembic.ini',
    environment: {
      PATH: `${venv.bin}:${process.env['PATH']}`,
      DATABASE_URL: 'postgresql+psycopg://nobody@127.0.0.1:1/none',
      ...Object.fromEntries(environment),
    },
    ...(alembic?.commands?.heads && { headsCommand: alembic.commands.heads }),
    signal: new AbortController().signal,
    redactor: createRedactor([]),
  });
}

const startOf = ({ start }: Chain): readonly string[] => (start === 'unversioned' ? [] : start);

/** The others are simple lines: `npm run proof -- verdicts` reads them too. */
const chains = [...SURROUNDINGS, ...GRAPHS];
const hiding = 'wrapper-hidden';

describe('the graph of a chain that surprises', () => {
  const readable = chains.filter(({ name, expected }) => expected.kind !== 'refused' && name !== hiding);
  test.for(readable)('$name: $point', async (chain) => {
    const graph = await graphOf(chain);
    const start = startOf(chain);
    expect(unknownRevisions(graph, start)).toEqual([]);
    const target = resolveTarget(graph, chain.target);
    const targets = target.kind === 'resolved' ? target.revisions : [];
    const path = upgradePaths(graph, start, targets);
    expect(path.map(({ revision }) => revision)).toEqual(expect.arrayContaining([...targets]));
    expect(path).not.toEqual([]);
    const back = downgradePlan(graph, rowsAlongPath(start, path).at(-1) ?? [], start);
    const commands = back.kind === 'planned' ? back.commands : [];
    expect(commands.at(-1)?.rowsAfter).toEqual([...start].sort());
    const planned = commands.map(({ argument }) => argument);
    expect(planned).toEqual(chain.back ?? planned);
  });

  test.for(chains.filter(({ name }) => name === hiding))('$name: $point', async (chain) => {
    const graph = await graphOf(chain);
    expect(isHiddenGraph(graph)).toBe(true);
    expect(graph.heads).toEqual([chain.target]);
  });

  const refused = chains.filter(({ expected, start }) => expected.kind === 'refused' && start !== 'unversioned');
  test.for(refused)('$name: $point', async (chain) => {
    const graph = await graphOf(chain);
    const target = resolveTarget(graph, chain.target);
    const reasons = [
      ...unknownRevisions(graph, startOf(chain)),
      ...(target.kind === 'refused' ? [target.message] : []),
    ];
    const says = chain.expected.kind === 'refused' ? chain.expected.says : [];
    expect(says.filter((text) => !reasons.join(' ').includes(text))).toEqual([]);
  });
});

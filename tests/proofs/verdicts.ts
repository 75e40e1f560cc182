/** Chains of migrations that surprise: is the verdict of their rehearsal right, and does production bear it out? */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProofCase } from '../../scripts/proof.ts';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { releaseAlembic } from '../../src/activities/release-alembic.ts';
import { rollbackOffer } from '../../src/contract/rehearsal-offer.ts';
import { parseConnectionUrl } from '../../src/postgres/connection-url.ts';
import type { TrialResult } from '../../src/rehearsal/trial-request.ts';
import type { Chain } from '../fixtures/verdicts/chain.ts';
import { CHAINS } from '../fixtures/verdicts/chains.ts';
import { bornOut } from './verdicts/borne-out.ts';
import { differences, readProduction } from './verdicts/production.ts';
import {
  copyDatabase,
  dropDatabase,
  type Graph,
  readGraph,
  superuserIn,
  tryChain,
  unexpected,
  verdictText,
} from './verdicts/rehearsal.ts';
import { createProduction, createWorld, dependencies, signal, type World } from './verdicts/world.ts';

export const sentence = `${CHAINS.length} chains of migrations that surprise: verdict and recovery offered are right, and production's way back bears them out`;

/** Chains at work at a time. */
const LANES = 2;

export const run = async (say: (line: string) => void): Promise<readonly ProofCase[]> => {
  const directory = join(stackRoot, `proof-verdicts-${randomBytes(4).toString('hex')}`);
  const stack = await startStack({ directory, parts: ['primary', 'scratch', 's3'], onProgress: say });
  try {
    const world = await createWorld(directory, stack);
    const cases: ProofCase[] = [];
    const waiting = wanted().entries();
    const lane = async (): Promise<void> => {
      for (const [index, chain] of waiting) {
        const one = await proveChain(world, chain, index).catch(
          (error: unknown): ProofCase => ({
            name: chain.name,
            passed: false,
            detail: error instanceof Error ? error.message.slice(0, 600) : String(error),
          }),
        );
        cases[index] = one;
        say(`${one.passed ? 'right' : 'WRONG'}  ${one.name}: ${one.detail}`);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return cases;
  } finally {
    await stack.stop();
    await rm(directory, { recursive: true, force: true });
  }
};

/** All of them, or those that VERDICTS names, separated by commas. */
const wanted = (): readonly Chain[] => {
  const names = process.env['VERDICTS']?.split(',');
  return names === undefined ? CHAINS : CHAINS.filter(({ name }) => names.includes(name));
};

async function proveChain(world: World, chain: Chain, index: number): Promise<ProofCase> {
  const service = await createProduction(world, chain, index);
  const { database, profile, run: facts } = service;
  const pristine = `${database}_pristine`;
  const copy = `${database}_trial`;
  const before = await readProduction(world, service);
  try {
    const graph = await readGraph(world, service);
    if (graph.kind === 'refused') return caseOf(chain, graph, null, []);
    const release = await releaseAlembic(
      dependencies(world),
      { run: facts, profile },
      { signal, progress: () => undefined, attempt: 1 },
    );
    await copyDatabase(world, database, pristine);
    await copyDatabase(world, pristine, copy);
    const trial = await tryChain(release, service, graph.evidence, {
      pristine: superuserIn(world, pristine),
      copy: superuserIn(world, copy),
      migrator: parseConnectionUrl(world.url('migrator', copy)),
      recorded: before.contents,
    });
    const touched = differences(before, await readProduction(world, service, before)).map(
      (line) => `the rehearsal changed production: ${line}`,
    );
    const seen =
      trial.kind === 'rehearsed'
        ? await bornOut(world, release, service, graph.evidence, { before, trial, pristine })
        : [];
    return caseOf(chain, graph, trial, [...touched, ...seen]);
  } finally {
    for (const name of [copy, pristine, database]) await dropDatabase(world, name);
  }
}

function caseOf(chain: Chain, graph: Graph, trial: TrialResult | null, found: readonly string[]): ProofCase {
  const wrong = [...unexpected(chain, graph, trial), ...found];
  return {
    name: chain.name,
    passed: wrong.length === 0,
    detail: `${outcomeText(graph, trial)} | ${chain.point}${wrong.length === 0 ? '' : ` | WRONG: ${wrong.join(' // ')}`}`,
  };
}

function outcomeText(graph: Graph, trial: TrialResult | null): string {
  if (graph.kind === 'refused' || trial === null) return 'refused';
  if (trial.kind === 'upgrade-failed') return `upgrade fails${trial.revision === null ? '' : ` at ${trial.revision}`}`;
  return `${verdictText(trial.verdict)}, rollback ${rollbackOffer(trial.verdict).rollback}`;
}

/** Chains of migrations that surprise: is the verdict of their rehearsal right, and does production bear it out? */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProofCase } from '../../scripts/proof.ts';
import { stackRoot } from '../../scripts/stack/layout.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { rollbackOffer } from '../../src/contract/rehearsal-offer.ts';
import type { Chain } from '../fixtures/verdicts/chain.ts';
import { CHAINS } from '../fixtures/verdicts/chains.ts';
import { notBorneOut } from './verdicts/borne-out.ts';
import { differences, readProduction } from './verdicts/production.ts';
import {
  copyPristine,
  dropCopies,
  type Graph,
  type Outcome,
  readGraph,
  rehearseByActivities,
  rehearseOnCopy,
  unexpected,
  verdictText,
} from './verdicts/rehearsal.ts';
import { createProduction, createWorld, type World } from './verdicts/world.ts';

export const sentence = `${CHAINS.length} chains of migrations that surprise: verdict and recovery offered are right, and production's way back bears them out (one through the archive, the others from a copy with a ledger of the same code)`;

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

/** This one goes through the archive, and the rehearsal's activities, as a run does. */
const ARCHIVED = 'additive';

async function proveChain(world: World, chain: Chain, index: number): Promise<ProofCase> {
  const service = await createProduction(world, chain, index);
  const pristine = `${service.database}_pristine`;
  const before = await readProduction(world, service);
  try {
    const graph = await readGraph(world, service);
    if (graph.kind === 'refused') return caseOf(chain, graph, null, []);
    await copyPristine(world, service, pristine);
    const outcome =
      chain.name === ARCHIVED
        ? await rehearseByActivities(world, service, graph.evidence)
        : await rehearseOnCopy(world, service, graph.evidence, { pristine, recorded: before.contents });
    const touched = differences(before, await readProduction(world, service, before));
    const seen =
      outcome.kind === 'rehearsed'
        ? await notBorneOut(world, service, graph.evidence, { before, pristine, ...outcome })
        : [];
    return caseOf(chain, graph, outcome, [
      ...touched.map((line) => `the rehearsal changed production: ${line}`),
      ...seen,
    ]);
  } finally {
    await dropCopies(world, service);
  }
}

function caseOf(chain: Chain, graph: Graph, trial: Outcome | null, found: readonly string[]): ProofCase {
  const wrong = [...unexpected(chain, graph, trial), ...found];
  return {
    name: chain.name,
    passed: wrong.length === 0,
    detail: `${outcomeText(graph, trial)} | ${chain.point}${wrong.length === 0 ? '' : ` | WRONG: ${wrong.join(' // ')}`}`,
  };
}

function outcomeText(graph: Graph, trial: Outcome | null): string {
  if (graph.kind === 'refused' || trial === null) return 'refused';
  if (trial.kind === 'upgrade-failed') return `upgrade fails${trial.revision === null ? '' : ` at ${trial.revision}`}`;
  return `${verdictText(trial.verdict)}, rollback ${rollbackOffer(trial.verdict).rollback}`;
}

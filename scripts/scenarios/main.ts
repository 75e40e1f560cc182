/** `scripts/demo`: the whole runbook on real parts, one scenario or all of them on one stack. */
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ensureBundle } from '../build-bundle.ts';
import { deployExample } from '../stack/example.ts';
import { stackRoot } from '../stack/layout.ts';
import { attachStack, startStack, stopStack } from '../stack/stack.ts';
import { atTerminal, byScenario } from './decisions.ts';
import { writeProfile } from './profile.ts';
import { connectClient, runScenario } from './run-scenario.ts';
import { SCENARIOS, scenarioNamed } from './scenarios.ts';
import { startWorker } from './worker.ts';

const usage = `usage: scripts/demo [--scenario NAME|all] [--yes] [--keep] [--stop]

Sets up PostgreSQL with a replica, staging and scratch servers, Temporal, S3, Redis and an example service below .stack/,
runs a migration through the runbook and shows every step. Ends with one line of JSON; exit code 0 only if it ended as expected.

  --scenario NAME  one of the scenarios below, or "all" one after the other (default: success)
  --yes            takes the decisions itself, as a second person; without it you are asked
  --keep           leaves the stack up, for the Temporal UI and the runbook command
  --stop           stops a stack that --keep left up, and does nothing else

${SCENARIOS.map(({ name, expected, sentence }) => `  ${name.padEnd(14)} ${expected.padEnd(12)} ${sentence}`).join('\n')}`;

const directory = path.join(stackRoot, 'demo');
const began = Date.now();
const say = (line: string): void => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${line}`);

function options() {
  try {
    return parseArgs({
      options: {
        scenario: { type: 'string', default: 'success' },
        yes: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        stop: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
    process.exit(2);
  }
}

async function demo(): Promise<number> {
  const { scenario: wanted, yes, keep, stop, help } = options();
  if (help) {
    console.log(usage);
    return 0;
  }
  if (stop) {
    say(`${await stopStack(directory)} servers stopped`);
    return 0;
  }
  const scenarios = wanted === 'all' ? SCENARIOS : [scenarioNamed(wanted)];
  if (!yes && !process.stdin.isTTY) throw new Error('there is no terminal to ask for decisions: add --yes');

  // What an earlier --keep left up has its own data and its own worker: start from the beginning.
  if (await attachStack(directory)) await stopStack(directory);
  const lifetime = keep ? 'detached' : 'with-parent';
  const stack = await startStack({ directory, lifetime, onProgress: say });
  let failed = 0;
  try {
    if (!stack.temporal) throw new Error('the stack runs without Temporal');
    const [example] = await Promise.all([deployExample(stack, { onProgress: say }), ensureBundle()]);
    const { directory: profilesDirectory, outbox } = await writeProfile(example);
    await startWorker({ stack, profilesDirectory, lifetime });
    say(`Temporal UI: ${stack.temporal.uiUrl}`);
    const client = await connectClient(stack.temporal.address, stack.temporal.namespace);
    try {
      for (const scenario of scenarios) {
        const result = await runScenario(scenario, {
          example,
          client,
          say,
          deciders: yes ? byScenario(say) : atTerminal(say),
        });
        say(`report: ${result.report ?? 'none'}; what people were told: ${outbox}`);
        for (const finding of result.findings) say(`NOT AS CLAIMED: ${finding}`);
        const { findings, ...line } = result;
        if (keep) {
          say(`the stack stays up: TEMPORAL_ADDRESS=${stack.temporal.address}; stop it with: scripts/demo --stop`);
        }
        console.log(JSON.stringify(line));
        if (result.outcome !== result.expected || findings.length > 0) failed += 1;
      }
    } finally {
      await client.connection.close();
    }
  } finally {
    if (!keep) await stack.stop();
  }
  return failed === 0 ? 0 : 1;
}

process.exitCode = await demo().catch((error: unknown) => {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});

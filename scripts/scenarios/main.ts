/** `scripts/demo`: the whole runbook on real parts, one scenario or all of them on one stack. */
import { parseArgs } from 'node:util';
import { atTerminal, byScenario } from './decisions.ts';
import { runScenario } from './run-scenario.ts';
import { SCENARIOS, scenarioNamed } from './scenarios.ts';
import { stopSession, withSession } from './session.ts';

const usage = `usage: scripts/demo [--scenario NAME|all] [--yes] [--keep] [--stop]

Sets up PostgreSQL with a replica, staging and scratch servers, Temporal, S3, Redis and an example service below .stack/,
runs a migration through the runbook and shows every step. Ends with one line of JSON; exit code 0 only if it ended as expected.

  --scenario NAME  one of the scenarios below, or "all" one after the other (default: success)
  --yes            takes the decisions itself, as a second person; without it you are asked
  --keep           leaves the stack up, for the Temporal UI and the runbook command
  --stop           stops a stack that --keep left up, and does nothing else

${SCENARIOS.map(({ name, expected, sentence }) => `  ${name.padEnd(14)} ${expected.padEnd(12)} ${sentence}`).join('\n')}`;

const NAME = 'demo';
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
    say(`${await stopSession(NAME)} servers stopped`);
    return 0;
  }
  if (wanted !== 'all' && !SCENARIOS.some(({ name }) => name === wanted)) {
    console.error(`there is no scenario "${wanted}"\n\n${usage}`);
    return 2;
  }
  const scenarios = wanted === 'all' ? SCENARIOS : [scenarioNamed(wanted)];
  if (!yes && !process.stdin.isTTY) throw new Error('there is no terminal to ask for decisions: add --yes');

  const lifetime = keep ? 'detached' : 'with-parent';
  return withSession({ name: NAME, lifetime, say }, async ({ example, client, profile, temporal }) => {
    let failed = 0;
    for (const scenario of scenarios) {
      const deciders = yes ? byScenario(say) : atTerminal(say);
      const { findings, ...result } = await runScenario(scenario, { example, client, say, deciders });
      say(`report: ${result.report ?? 'none'}; what people were told: ${profile.outbox}`);
      for (const finding of findings) say(`NOT AS CLAIMED: ${finding}`);
      if (keep) say(`the stack stays up: TEMPORAL_ADDRESS=${temporal.address}; stop it with: scripts/demo --stop`);
      console.log(JSON.stringify(result));
      if (result.outcome !== result.expected || findings.length > 0) failed += 1;
    }
    return failed === 0 ? 0 : 1;
  });
}

process.exitCode = await demo().catch((error: unknown) => {
  console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});

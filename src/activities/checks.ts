import type { ApplyActivities, ValidationActivities } from '../contract/activities.ts';
import type { ChecksEvidence } from '../contract/evidence/checks.ts';
import type { MeasuresComparison } from '../contract/evidence/measures.ts';
import { STEP_ERRORS, StepError } from '../contract/errors.ts';
import type { Check } from '../contract/profile.ts';
import { runCheck } from '../integrations/checks.ts';
import type { IntegrationContext } from '../integrations/context.ts';
import { compareWithBaseline, pause, takeMeasures } from '../integrations/monitor.ts';
import { runStep, type StepTools } from './activity-step.ts';
import type { ActivityDependencies } from './dependencies.ts';
import { integrationContext } from './integration-context.ts';

type Offered = Pick<ApplyActivities, 'runChecks' | 'captureMeasures'> & Pick<ValidationActivities, 'compareMeasures'>;

export function createCheckActivities(dependencies: Pick<ActivityDependencies, 'stateDirectory' | 'secrets'>): Offered {
  const { secrets } = dependencies;
  return {
    runChecks: (input) =>
      runStep(secrets, (tools) => runChecks(input.checks, integrationContext(dependencies, input, tools), tools)),

    captureMeasures: (input) =>
      runStep(secrets, (tools) => {
        const { measures, sampleEvery } = input.profile.monitoring;
        const sampling = { every: sampleEvery, progress: tools.progress };
        return takeMeasures(measures, sampling, integrationContext(dependencies, input, tools));
      }),

    compareMeasures: (input) =>
      runStep(secrets, async (tools) => {
        const { settle, sampleEvery } = input.profile.monitoring;
        tools.progress({ phase: 'settling', milliseconds: settle });
        await pause(settle, tools.signal);
        const sampling = { every: sampleEvery, progress: tools.progress };
        const after = await takeMeasures(input.measures, sampling, integrationContext(dependencies, input, tools));
        return requireWithin(compareWithBaseline(input.measures, input.baseline, after));
      }),
  };
}

/** Runs all of them, so that one message names every check that says no. */
async function runChecks(
  checks: readonly Check[],
  context: IntegrationContext,
  { signal, progress }: StepTools,
): Promise<ChecksEvidence> {
  const passed: { name: string; milliseconds: number; answer: string }[] = [];
  const failed: { name: string; error: StepError }[] = [];
  for (const check of checks) {
    progress({ check: check.name, passed: passed.length, failed: failed.length, of: checks.length });
    const started = performance.now();
    try {
      const answer = await runCheck(check, context);
      passed.push({ name: check.name, milliseconds: Math.round(performance.now() - started), answer });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof StepError)) throw error;
      failed.push({ name: check.name, error });
    }
  }
  if (failed.length === 0) return { checks: passed };
  const findings = failed.map(({ name, error }) => `check "${name}": ${error.message}`);
  const passing = failed.every(({ error }) => error.type === STEP_ERRORS.unavailable);
  throw new StepError(passing ? STEP_ERRORS.unavailable : STEP_ERRORS.checkFailed, findings.join('; '), {
    findings,
    passed,
  });
}

function requireWithin(comparison: MeasuresComparison): MeasuresComparison {
  const exceeded = comparison.values.filter(({ verdict }) => verdict === 'exceeded');
  if (exceeded.length === 0) return comparison;
  const findings = exceeded.map(
    ({ name, before, after, limit }) =>
      `measure "${name}": ${rounded(after)}, at most ${rounded(limit)} allowed (${rounded(before)} before)`,
  );
  throw new StepError(STEP_ERRORS.checkFailed, findings.join('; '), { findings, values: comparison.values });
}

const rounded = (value: number): string => String(Number(value.toPrecision(6)));

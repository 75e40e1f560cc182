/** Section 2 of the document: required tooling, and what the release's migrations are. */
import type { GraphEvidence, ToolingEvidence } from '../../contract/evidence/tooling.ts';
import { stepRefused } from '../failure.ts';
import type { MigrationRun } from '../run.ts';
import { LOOK, TRIAL } from '../step-policies.ts';
import { ownSteps } from './own-steps.ts';

export interface Tooling {
  readonly tools: ToolingEvidence;
  readonly graph: GraphEvidence;
}

/** Asked again when the window opens, on whatever host that is: what was rehearsed with other versions proves nothing. */
export const verifyTools = (run: MigrationRun, id: 'tooling.verify' | 'apply.window/tools'): Promise<ToolingEvidence> =>
  run.step(
    id,
    'PostgreSQL programs, secrets, Alembic at the release',
    // The checkout's own preparation (installing the service's packages) may take its time.
    { ...LOOK, startToCloseTimeout: run.profile.repository.prepareTimeout + 120_000 },
    (activities) => activities.verifyTooling(run.input()),
  );

export async function tooling(run: MigrationRun): Promise<Tooling> {
  const tools = await verifyTools(run, 'tooling.verify');
  const graph = await run.step('tooling.graph', 'Migration graph of the release', TRIAL, (activities) =>
    activities.readMigrationGraph({ ...run.input(), targetRevision: run.request.targetRevision ?? 'head' }),
  );
  if (graph.path.length === 0) {
    run.judge('tooling.graph/path', 'Something to migrate', () => {
      throw stepRefused(
        `production stands at ${graph.startRevisions.join(', ') || 'no revision'} already: ${run.request.releaseTag} has nothing to migrate up to ${graph.targetRevision}`,
      );
    });
  }
  await ownSteps(run, 'tooling');
  return { tools, graph };
}

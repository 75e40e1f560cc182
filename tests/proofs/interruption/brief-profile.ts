import { type WrittenProfile, writeProfile } from '../../../scripts/scenarios/profile.ts';
import type { Example } from '../../../scripts/stack/example.ts';

/**
 * The example's profile with what is not interrupted here cut short: no tests on staging, one critical flow, one switch, no
 * smoke tests that write.
 *
 * @param store where the object store is to be reached
 * @param alembic what its Alembic is run with otherwise
 */
export const writeBriefProfile = (
  example: Example,
  store: string,
  alembic: { readonly urlScheme?: string; readonly environment?: Readonly<Record<string, string>> } = {},
): Promise<WrittenProfile> =>
  writeProfile(example, {
    backup: { endpoint: store },
    monitoring: {
      settle: '0s',
      sampleEvery: '200ms',
      measures: [{ name: 'deadlocks', deadlocks: true }],
    },
    edit: (document) => ({
      ...document,
      alembic: { ...document.alembic, ...alembic },
      switches: (document.switches as readonly { readonly name: string }[]).filter(
        ({ name }) => name === 'deployments',
      ),
      staging: { ...document.staging, tests: [example.stack.venv.python, '--version'] },
      application: { ...document.application, flows: document.application.flows.slice(0, 1) },
      checks: { ...document.checks, smokeWrites: [] },
    }),
  });

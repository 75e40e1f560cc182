import { defineConfig } from 'vitest/config';

// Two files at a time where servers are used: the stack is one for all of them, and a small machine has two cores.
// A second, the default, is a time limit that a busy machine misses.
const patient = { expect: { poll: { timeout: 30_000 } } };

const onServers = {
  ...patient,
  globalSetup: ['tests/stack-setup.ts'],
  testTimeout: 120_000,
  hookTimeout: 120_000,
  maxWorkers: 2,
};

export default defineConfig({
  test: {
    projects: [
      {
        test: { ...patient, name: 'unit', include: ['tests/unit/**/*.test.ts'], sequence: { groupOrder: 0 } },
      },
      {
        // Temporal's time-skipping server and workflow bundles: heavy in memory, so one file at a time.
        test: {
          ...patient,
          name: 'workflow',
          include: ['tests/{workflow,replay}/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'integration',
          include: ['tests/integration/**/*.test.ts'],
          ...onServers,
          sequence: { groupOrder: 2 },
        },
      },
      {
        // These kill and stop things: one file at a time.
        test: {
          name: 'faults',
          include: ['tests/faults/**/*.test.ts'],
          ...onServers,
          testTimeout: 300_000,
          maxWorkers: 1,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});

/** A step's surroundings for integrations, outside of Temporal: a profile from the template, secrets resolved as in a worker. */
import { readFile } from 'node:fs/promises';
import { secretAccess } from '../src/activities/integration-context.ts';
import { createSecretVault } from '../src/profile/secret-vault.ts';
import type { RunFacts } from '../src/contract/evidence/step.ts';
import type { Profile } from '../src/contract/profile.ts';
import type { IntegrationContext } from '../src/integrations/context.ts';
import { parseProfile } from '../src/profile/load.ts';

const template = await readFile(new URL('../config/profile-template.yaml', import.meta.url), 'utf8');

/** The template's profile at home in a folder of the test's own, with parts replaced. */
export const testProfile = (home: string, changes: Partial<Profile> = {}): Profile => ({
  ...parseProfile(template, home, 'whisper-transcriber.yaml').profile,
  ...changes,
});

export const testRun: RunFacts = {
  runId: '0f0e0d0c-0000-4000-8000-000000000001',
  workflowId: 'migrate-whisper-transcriber',
  service: 'whisper-transcriber',
  releaseTag: 'v1.1.0',
  changeTicket: 'CHG-1042 / urgent',
  requestedBy: 'dana@example.com',
};

export interface ContextChanges {
  readonly profile?: Partial<Profile>;
  readonly run?: Partial<RunFacts>;
  readonly checkout?: string;
  readonly signal?: AbortSignal;
}

export function testContext(home: string, changes: ContextChanges = {}): IntegrationContext {
  const profile = testProfile(home, changes.profile);
  const signal = changes.signal ?? new AbortController().signal;
  return {
    run: { ...testRun, ...changes.run },
    profile,
    secrets: secretAccess({ secrets: createSecretVault() }, { profile }, signal),
    checkout: async () => {
      if (changes.checkout === undefined) throw new Error('this test needs no checkout');
      return changes.checkout;
    },
    signal,
    step: 'test',
  };
}

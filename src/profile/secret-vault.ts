import type { ConfiguredValue, Profile, SecretReference } from '../contract/profile.ts';
import { createRedactor, type Redactor } from '../process/redactor.ts';
import { resolveSecret } from './secrets.ts';

/**
 * Resolves secret references and remembers the values for as long as the worker or command lives, only to be able
 * to strike them out of every text that leaves it: failures, heartbeats, logs, archived documents.
 */
export interface SecretVault {
  /** @throws StepError `StepRefused`, naming the reference, never the value */
  resolve(reference: SecretReference, profile: Profile, signal: AbortSignal): Promise<string>;
  resolveValue(value: ConfiguredValue, profile: Profile, signal: AbortSignal): Promise<string>;
  resolveAll(
    values: Readonly<Record<string, ConfiguredValue>>,
    profile: Profile,
    signal: AbortSignal,
  ): Promise<Record<string, string>>;
  readonly redactor: Redactor;
}

export function createSecretVault(): SecretVault {
  const known = new Set<string>();
  let current: Redactor = createRedactor([]);

  const resolve: SecretVault['resolve'] = async (reference, profile, signal) => {
    const value = await resolveSecret(reference, { home: profile.home, signal });
    if (!known.has(value)) {
      known.add(value);
      current = createRedactor([...known]);
    }
    return value;
  };
  const resolveValue: SecretVault['resolveValue'] = async (value, profile, signal) =>
    typeof value === 'string' ? value : resolve(value.secret, profile, signal);

  return {
    resolve,
    resolveValue,
    resolveAll: async (values, profile, signal) => {
      const resolved: Record<string, string> = {};
      for (const [name, value] of Object.entries(values)) resolved[name] = await resolveValue(value, profile, signal);
      return resolved;
    },
    get redactor() {
      return current;
    },
  };
}

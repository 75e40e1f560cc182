import { StepError } from '../contract/errors.ts';
import type { Profile } from '../contract/profile.ts';
import { loadProfile } from '../profile/load.ts';
import { createSecretVault, type SecretVault } from '../profile/secret-vault.ts';
import { CommandError, EXIT_CODES } from './command-error.ts';

/** What a command may use of a service. */
export interface ServiceAccess {
  readonly profile: Profile;
  readonly secrets: SecretVault;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
}

/**
 * Loads the profile, works, and strikes every secret that was resolved out of whatever goes wrong.
 *
 * @throws CommandError
 */
export async function withServiceAccess<T>(
  profiles: string,
  service: string,
  work: (access: ServiceAccess) => Promise<T>,
): Promise<T> {
  const { profile } = await loadProfile(profiles, service);
  const secrets = createSecretVault();
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    return await work({ profile, secrets, signal: interrupted.signal });
  } catch (error) {
    if (interrupted.signal.aborted) throw new CommandError('interrupted', EXIT_CODES.interrupted);
    throw withoutSecrets(error, secrets);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

function withoutSecrets(error: unknown, { redactor }: SecretVault): unknown {
  if (!(error instanceof Error)) return error;
  const message = redactor.redact(error.message);
  if (error instanceof CommandError) return new CommandError(message, error.exitCode);
  if (error instanceof StepError) return new CommandError(message);
  // What a child wrote or a driver said may be in properties and causes: only the text goes on.
  const plain = new Error(message);
  plain.name = error.name;
  return plain;
}

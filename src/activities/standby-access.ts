import type { Profile } from '../contract/profile.ts';
import type { StandbyAccess } from '../postgres/standbys.ts';
import type { SecretVault } from '../profile/secret-vault.ts';

/** The profile's standbys with their administrators' addresses. */
export const standbyAccess = (
  secrets: Pick<SecretVault, 'resolve'>,
  profile: Profile,
  signal: AbortSignal,
): Promise<StandbyAccess[]> =>
  Promise.all(
    profile.databases.production.standbys.map(async ({ name, sessions, administrator }) => ({
      name,
      sessions,
      url: administrator === undefined ? undefined : await secrets.resolve(administrator, profile, signal),
    })),
  );

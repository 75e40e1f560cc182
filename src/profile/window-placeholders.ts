import type { Profile } from '../contract/profile.ts';
import type { MigrationRequest } from '../contract/request.ts';
import { visitScalars } from './finding.ts';
import { placeholdersIn } from './placeholders.ts';

/** What acts before the window is known, if the request names none, must not need to know it. */
export function windowFindings(
  profile: Profile,
  request: Pick<MigrationRequest, 'windowStart' | 'windowEnd'>,
): string[] {
  if (request.windowStart !== undefined && request.windowEnd !== undefined) return [];
  const early = [
    profile.announce,
    profile.switches.filter(({ kind }) => kind === 'notice' || kind === 'silence'),
    profile.steps.filter(({ section }) => ['preconditions', 'tooling', 'backup', 'dry-run'].includes(section)),
  ];
  let uses = false;
  visitScalars(early, (scalar) => {
    if (typeof scalar !== 'string') return;
    uses ||= placeholdersIn(scalar).some((name) => name === 'windowStart' || name === 'windowEnd');
  });
  return uses
    ? [
        'the profile announces {{windowStart}} or {{windowEnd}}: the request must name both "windowStart" and "windowEnd"',
      ]
    : [];
}

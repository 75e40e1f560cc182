/** `runbook check`: a profile as a run would read it, and its secret references as they resolve on this machine. */
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { StepError } from '../contract/errors.ts';
import type { Profile, SecretReference } from '../contract/profile.ts';
import { parseConnectionUrl } from '../postgres/connection-url.ts';
import { listServices, loadProfile } from '../profile/load.ts';
import { collectSecretReferences } from '../profile/secret-references.ts';
import { describeReference } from '../profile/secrets.ts';
import { CommandError } from './command-error.ts';
import { oneLine } from './one-line.ts';
import { type DatabaseNames, profileFacts, type ProfileFact } from './profile-facts.ts';
import { type ServiceAccess, withServiceAccess } from './service-access.ts';

export interface CheckedSecret {
  /** Names where the value is found; never holds the value. */
  readonly reference: string;
  /** Keys of the profile that use it. */
  readonly usedBy: readonly string[];
  readonly resolves: boolean;
  /** Where it does not, or gives something that cannot be used there. */
  readonly why?: string;
}

export type CheckedProfile =
  /** What a run of this service would be refused with. */
  | { readonly file: string; readonly accepted: false; readonly findings: readonly string[] }
  | {
      readonly file: string;
      readonly accepted: true;
      readonly service: string;
      /** As it will stand in the plan. */
      readonly digest: string;
      readonly facts: Readonly<Record<string, string>>;
      /** Null where they were not tried. */
      readonly secrets: readonly CheckedSecret[] | null;
      /** The canonical profile, completed with defaults. */
      readonly profile: Profile;
    };

export const SECRET_POLICIES = ['tell', 'require', 'skip'] as const;
/** `require`: one that does not resolve here fails the check; `skip`: none is tried, no program is run. */
export type SecretPolicy = (typeof SECRET_POLICIES)[number];

const ENDING = '.yaml';

/** Files as they were given, folders as the profiles in them. */
export async function profileFiles(paths: readonly string[]): Promise<readonly string[]> {
  const files = await Promise.all(
    paths.map(async (path) => {
      const isFolder = await stat(path).then(
        (found) => found.isDirectory(),
        () => false,
      );
      if (!isFolder) return [path];
      const services = await listServices(path);
      if (services.length === 0) throw new CommandError(`there is no profile in ${path}: no file ends in ${ENDING}`);
      return services.map((service) => join(path, `${service}${ENDING}`));
    }),
  );
  return [...new Set(files.flat())];
}

/** @param tell how many references have been tried, and of how many */
export async function checkProfile(
  file: string,
  policy: SecretPolicy,
  tell: (done: number, of: number) => void,
): Promise<CheckedProfile> {
  const refused = (findings: readonly string[]): CheckedProfile => ({ file, accepted: false, findings });
  if (
    !(await stat(file).then(
      (found) => found.isFile(),
      () => false,
    ))
  )
    return refused([`${file} is not there`]);
  if (!file.endsWith(ENDING)) {
    return refused([`${basename(file)}: workers read <service>${ENDING} only: name the file after the service`]);
  }
  const [directory, service] = [dirname(file), basename(file, ENDING)];
  try {
    const { profile, digest } = await loadProfile(directory, service);
    const resolved =
      policy === 'skip'
        ? undefined
        : await withServiceAccess(directory, service, (access) => resolveReferences(access, tell));
    const { secrets = null, names = {} } = resolved ?? {};
    const facts = Object.fromEntries(profileFacts(profile, names));
    return { file, accepted: true, service, digest, facts, secrets, profile };
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    const { findings } = error.details;
    return refused(Array.isArray(findings) ? findings.map(String) : [error.message]);
  }
}

/** At a time: a secrets manager's client takes a moment, a machine has few cores. */
const AT_ONCE = 4;

async function resolveReferences(
  { profile, secrets, signal }: ServiceAccess,
  tell: (done: number, of: number) => void,
): Promise<{ readonly secrets: readonly CheckedSecret[]; readonly names: DatabaseNames }> {
  const places = placesOf(profile);
  const results: CheckedSecret[] = [];
  const databases = new Map<string, string>();
  const waiting = [...places.entries()];
  let done = 0;
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [index, { reference, usedBy }] = next;
      tell(done, places.length);
      const facts = { reference: describeReference(reference), usedBy };
      try {
        const value = await secrets.resolve(reference, profile, signal);
        const key = usedBy.find((path) => path.startsWith('databases.'));
        if (key !== undefined) for (const path of usedBy) databases.set(path, parseConnectionUrl(value).database);
        results[index] = { ...facts, resolves: true };
      } catch (error) {
        if (!(error instanceof StepError)) throw error;
        results[index] = { ...facts, resolves: false, why: oneLine(secrets.redactor.redact(error.message)) };
      }
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const nameOf = (kind: 'production' | 'staging'): string | undefined =>
    ['migrator', 'administrator', 'backup'].map((role) => databases.get(`databases.${kind}.${role}`)).find(Boolean);
  const [production, staging] = [nameOf('production'), nameOf('staging')];
  return {
    secrets: results,
    names: { ...(production !== undefined && { production }), ...(staging !== undefined && { staging }) },
  };
}

/** Each reference once, with all the places that use it. */
function placesOf(
  profile: Profile,
): readonly { readonly reference: SecretReference; readonly usedBy: readonly string[] }[] {
  const places = new Map<string, { readonly reference: SecretReference; readonly usedBy: string[] }>();
  for (const { path, reference } of collectSecretReferences(profile)) {
    const key = JSON.stringify(reference);
    const known = places.get(key);
    if (known) known.usedBy.push(path);
    else places.set(key, { reference, usedBy: [path] });
  }
  return [...places.values()];
}

const WIDTH = 11;
const INDENT = '  ';

/** The check of one file as text. */
export function checkedText(checked: CheckedProfile): string {
  if (!checked.accepted) {
    return [
      `${checked.file}: REFUSED, ${checked.findings.length} finding(s)`,
      ...checked.findings.map((finding) => `${INDENT}${oneLine(finding)}`),
    ].join('\n');
  }
  const { file, facts, secrets, digest } = checked;
  const rows: readonly ProfileFact[] = [
    ...Object.entries(facts),
    ['digest', digest],
    ['secrets', secretsText(secrets)],
  ];
  return [
    `${file}: accepted`,
    ...rows.map(([name, text]) => `${INDENT}${name.padEnd(WIDTH)}${oneLine(text)}`),
    ...(secrets ?? []).map(
      ({ reference, usedBy, resolves, why }) =>
        `${INDENT}${INDENT}${resolves ? '✓' : '✗'} ${usedBy.join(', ')}: ${why ?? reference}`,
    ),
  ].join('\n');
}

function secretsText(secrets: readonly CheckedSecret[] | null): string {
  if (secrets === null) return 'not tried';
  const good = secrets.filter(({ resolves }) => resolves).length;
  return `${good} of ${secrets.length} resolve on this machine; workers resolve them on theirs, with their own files and environment`;
}

export const hasUnresolved = (checked: CheckedProfile): boolean =>
  checked.accepted && (checked.secrets ?? []).some(({ resolves }) => !resolves);

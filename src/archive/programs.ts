import { join, resolve } from 'node:path';
import type { Profile } from '../contract/profile.ts';
import { refusal } from '../contract/errors.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess } from '../process/run.ts';

export const POSTGRES_PROGRAMS = ['psql', 'pg_dump', 'pg_restore'] as const;
export type PostgresProgramName = (typeof POSTGRES_PROGRAMS)[number];

/** One client program of PostgreSQL on this host. */
export interface PostgresProgram {
  readonly name: PostgresProgramName;
  /** A path, or a name to be looked up on PATH. */
  readonly file: string;
  /** As it tells it itself, e.g. `18.6`. */
  readonly version: string;
  readonly major: number;
}

export type PostgresPrograms = Readonly<Record<PostgresProgramName, PostgresProgram>>;

export interface ProgramSearch {
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
  /**
   * Major version of the server they are to be used with. `pg_dump` refuses a newer server, and what a newer `pg_dump` or
   * `pg_restore` writes an older server may refuse, so it must be the server's own.
   */
  readonly serverMajor?: number;
}

/**
 * Finds the client programs of the profile, or of PATH, and asks each for its version.
 * @throws StepError `StepRefused` with every finding
 */
export async function findPrograms(
  profile: Pick<Profile, 'home' | 'postgresPrograms'>,
  search: ProgramSearch,
): Promise<PostgresPrograms> {
  const { programs, findings } = await inspectPrograms(profile, search);
  if (programs === undefined) throw refusal(findings);
  return programs;
}

export type InspectedPrograms =
  | { readonly programs: PostgresPrograms; readonly findings: readonly never[] }
  | { readonly programs: undefined; readonly findings: readonly string[] };

/** As `findPrograms`, for callers that have findings of their own to tell in the same message. */
export async function inspectPrograms(
  profile: Pick<Profile, 'home' | 'postgresPrograms'>,
  search: ProgramSearch,
): Promise<InspectedPrograms> {
  const folder = profile.postgresPrograms === undefined ? undefined : resolve(profile.home, profile.postgresPrograms);
  const where = folder === undefined ? 'on PATH' : `in ${folder} (postgresPrograms)`;
  const results = await Promise.all(
    POSTGRES_PROGRAMS.map((name) =>
      inspectProgram(name, folder === undefined ? name : join(folder, name), where, search),
    ),
  );
  const findings = results.filter((result) => typeof result === 'string');
  if (findings.length > 0) return { programs: undefined, findings };
  const found = results.filter((result) => typeof result !== 'string');
  return {
    programs: Object.fromEntries(found.map((program) => [program.name, program])) as PostgresPrograms,
    findings: [],
  };
}

async function inspectProgram(
  name: PostgresProgramName,
  file: string,
  where: string,
  search: ProgramSearch,
): Promise<PostgresProgram | string> {
  const result = await runProcess({
    file,
    args: ['--version'],
    signal: search.signal,
    redactor: search.redactor,
  }).catch((error: unknown) => {
    if (error instanceof ProcessNotStarted) return undefined;
    throw error;
  });
  const needed = search.serverMajor === undefined ? '' : ` of PostgreSQL ${search.serverMajor}`;
  if (result === undefined) {
    return `${name} was not found ${where}: install the client programs${needed} or set postgresPrograms in the profile.`;
  }
  // "pg_dump (PostgreSQL) 16.4 (Debian 16.4-1)", "psql (PostgreSQL) 18beta1"
  const version = /\(PostgreSQL\)\s+(?<version>(?<major>\d+)\S*)/.exec(result.stdoutTail)?.groups;
  if (result.kind !== 'exited' || result.code !== 0 || version === undefined) {
    return `${name} ${where} does not run: ${(result.stderrTail || result.stdoutTail).trim().slice(0, 200)}`;
  }
  const major = Number(version['major']);
  if (search.serverMajor !== undefined && major !== search.serverMajor) {
    return `${name} ${where} is version ${version['version']}, the production server is ${search.serverMajor}: use the programs of the server's own major version (postgresPrograms in the profile).`;
  }
  return { name, file, version: version['version']!, major };
}

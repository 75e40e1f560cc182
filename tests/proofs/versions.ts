/** PostgreSQL 14 to 17, each with server and client programs of its own: the workflow's three ways to end, and who is refused. */
import { rm } from 'node:fs/promises';
import type { ProofCase } from '../../scripts/proof.ts';
import { byScenario } from '../../scripts/scenarios/decisions.ts';
import { onProduction } from '../../scripts/scenarios/reality.ts';
import { runScenario } from '../../scripts/scenarios/run-scenario.ts';
import { scenarioNamed } from '../../scripts/scenarios/scenarios.ts';
import { type Session, sessionDirectory, withSession } from '../../scripts/scenarios/session.ts';
import { postgresBinDirectory } from '../../scripts/stack/layout.ts';
import { type OlderMajor, olderMajors, postgresOfMajor } from '../../scripts/stack/postgres-versions.ts';
import { findPrograms } from '../../src/archive/programs.ts';
import { createRedactor } from '../../src/process/redactor.ts';

export const sentence =
  'PostgreSQL 14, 15, 16 and 17: a migration that succeeds, one rolled back, one restored; objects and rows compared';

/** Each reads production afterwards: objects, rows, version, what was left. */
const SCENARIOS = ['success', 'fails', 'corrupts'] as const;

/** PROOF_MAJORS=14,16 takes some of them. */
const wanted = (): readonly OlderMajor[] => {
  const chosen = process.env['PROOF_MAJORS']?.split(',');
  return olderMajors.filter((major) => chosen?.includes(String(major)) ?? true);
};

export const run = async (say: (line: string) => void): Promise<readonly ProofCase[]> => {
  const cases: ProofCase[] = [];
  for (const major of wanted()) {
    const programs = await postgresOfMajor(major).catch((error: unknown) => {
      say(`PostgreSQL ${major} is skipped: ${(error as Error).message.split('\n')[0] ?? ''}`);
      return undefined;
    });
    if (programs !== undefined) cases.push(...(await onMajor(major, programs, say)));
  }
  return cases;
};

async function onMajor(major: OlderMajor, postgresBin: string, say: (line: string) => void): Promise<ProofCase[]> {
  const name = `proof-versions-${major}`;
  const told = (line: string): void => say(`${major}: ${line}`);
  try {
    return await withSession({ name, postgresBin, say: told }, async (session) => {
      const cases = [await ownPrograms(session, major), await otherProgramsRefused(major)];
      for (const scenario of SCENARIOS) cases.push(await endsAsExpected(session, { major, scenario, say: told }));
      return cases;
    });
  } finally {
    await rm(sessionDirectory(name), { recursive: true, force: true });
  }
}

/** Or the rest would prove something about another version. */
async function ownPrograms({ example }: Session, major: OlderMajor): Promise<ProofCase> {
  const server = await onProduction(example, async (client) => {
    const { rows } = await client.query<{ version: string }>(`SELECT current_setting('server_version') AS "version"`);
    return rows[0]?.version ?? '';
  });
  const home = example.stack.postgres.primary?.binDirectory ?? '';
  const found = await findPrograms(
    { home, postgresPrograms: home },
    { signal: new AbortController().signal, redactor: createRedactor([]), serverMajor: major },
  );
  const versions = Object.values(found).map((program) => `${program.name} ${program.version}`);
  return {
    name: `${major}: server and programs`,
    passed: server.startsWith(`${major}.`),
    detail: `server ${server}, ${versions.join(', ')}`,
  };
}

/** A newer `pg_restore` writes settings that an older server does not know. */
async function otherProgramsRefused(major: OlderMajor): Promise<ProofCase> {
  const packaged = postgresBinDirectory();
  const said = await findPrograms(
    { home: packaged, postgresPrograms: packaged },
    { signal: new AbortController().signal, redactor: createRedactor([]), serverMajor: major },
  ).then(
    () => 'they were taken',
    (error: unknown) => (error as Error).message,
  );
  return {
    name: `${major}: newer programs`,
    passed: said.includes(`the production server is ${major}`),
    detail: said.slice(0, 160),
  };
}

async function endsAsExpected(
  session: Session,
  {
    major,
    scenario,
    say,
  }: { readonly major: OlderMajor; readonly scenario: string; readonly say: (line: string) => void },
): Promise<ProofCase> {
  const { outcome, expected, findings, seconds } = await runScenario(scenarioNamed(scenario), {
    ...session,
    say,
    deciders: byScenario(say),
  });
  const passed = outcome === expected && findings.length === 0;
  return {
    name: `${major}: ${scenario}`,
    passed,
    detail: `${outcome} in ${seconds} s; ${passed ? 'objects and rows as they have to be' : `expected ${expected}: ${findings.slice(0, 3).join('; ')}`}`,
  };
}

import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { WrittenProfile } from '../../../scripts/scenarios/profile.ts';
import type { StackConnection } from '../../../scripts/stack/connection.ts';
import { root } from '../../../scripts/stack/layout.ts';
import { manifestOf, objectsOf } from './aftermath.ts';

const run = promisify(execFile);

/** Reads the stored backups of these steps back once more, by the command a person has for it and from the manifest alone. */
export async function verifiesAgain(
  stack: StackConnection,
  { service, directory }: WrittenProfile,
  runId: string,
  steps: readonly string[],
): Promise<string[]> {
  const objects = await objectsOf(stack, runId);
  const findings: string[] = [];
  for (const step of steps.filter((one) => objects.includes(manifestOf(one)))) {
    const uri = `s3://${stack.s3?.bucket}/migration-runbook/${service}/${runId}/${manifestOf(step)}`;
    try {
      await run(
        process.execPath,
        [path.join(root, 'src', 'cli.ts'), 'backup', 'verify', uri, '--service', service, '--profiles', directory],
        { cwd: stack.directory, env: { PATH: process.env['PATH'], HOME: stack.directory } },
      );
    } catch (error) {
      const said = error instanceof Error && 'stderr' in error ? String(error.stderr) : String(error);
      findings.push(`${step} does not verify: ${said.trim().slice(-300)}`);
    }
  }
  return findings;
}

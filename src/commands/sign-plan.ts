import type { Client } from '@temporalio/client';
import { SIGNATURE_NAMESPACE } from '../contract/messages.ts';
import { DIGEST_PREFIX, digestMatches } from '../contract/plan.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import { runInForeground } from '../process/foreground.ts';
import { CommandError, usageError } from './command-error.ts';
import { readPlan } from './run-plan.ts';

export interface PlanSignature {
  /** The whole digest. */
  readonly planDigest: string;
  readonly signature: string;
}

/**
 * Signs the plan of a run with `ssh-keygen`, which asks for the passphrase, or the agent, or the security key. What is signed
 * is the digest of the plan as it was read here, and only where it is the plan the person names.
 *
 * @param given digits of the digest of the plan that the person has read
 * @param keyFile private key, or the public key of one that the agent holds
 * @throws CommandError
 */
export async function signPlan(
  client: Client,
  service: string,
  given: string | undefined,
  keyFile: string,
): Promise<PlanSignature> {
  if (given === undefined) throw usageError(['--sign needs --plan: the digest of the plan you have read']);
  const { digest, plan } = await readPlan(client, service);
  if (!digestMatches(digest, given)) {
    throw new CommandError(
      given.length < DIGEST_PREFIX
        ? `--plan needs at least ${DIGEST_PREFIX} digits`
        : `not signed: the plan of ${service} is ${digest.slice(0, DIGEST_PREFIX)} now, not ${given.slice(0, DIGEST_PREFIX)}: read it with runbook plan ${service}`,
    );
  }
  if (plan.service !== service)
    throw new CommandError(`not signed: the plan is for ${plan.service}, not for ${service}`);
  return { planDigest: digest, signature: await sign(digest, keyFile) };
}

async function sign(digest: string, keyFile: string): Promise<string> {
  try {
    const { code, stdout } = await runInForeground({
      file: 'ssh-keygen',
      args: ['-Y', 'sign', '-n', SIGNATURE_NAMESPACE, '-f', keyFile],
      input: digest,
    });
    if (code !== 0 || !stdout.includes('BEGIN SSH SIGNATURE')) {
      throw new CommandError(`not signed: ssh-keygen could not sign with ${keyFile}`);
    }
    return stdout;
  } catch (error) {
    if (!(error instanceof ProcessNotStarted)) throw error;
    throw new CommandError('not signed: signing needs ssh-keygen (OpenSSH 8.2 or newer) on the PATH');
  }
}

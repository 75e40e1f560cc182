/** Whether signatures can be verified on this host at all, asked long before somebody signs. */
import { refusal } from '../contract/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { verifySignature } from './ssh-signature.ts';

/** Made once with a key that is gone. Not Ed25519, which hosts in FIPS mode refuse. */
const KEY =
  'ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBBcsAKpPVgfra6Scf576lKoMZGWsrJFgeQuBJAQbvKwUqhFJS7nsn70i/bTKGQpDhKu7r++wXp3A7HI2Qs+v3fo=';
const TEXT = 'migration-runbook';
const SIGNATURE = `-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAE
EEFywAqk9WB+trpJx/nvqUqgxkZayskWB5C4EkBBu8rBSqEUlLueyfvSL9tMoZCkOEq7uv
77BencDscjZCz6/d+gAAABFtaWdyYXRpb24tcnVuYm9vawAAAAAAAAAGc2hhNTEyAAAAZA
AAABNlY2RzYS1zaGEyLW5pc3RwMjU2AAAASQAAACEA79Jbh+2AbODzR/YfvArnK/iQcC5m
mqhWs3Tjfh+QKe8AAAAgKsfxLrJ4x1DClJ8IYUlSH7+eLWT0Ak8LjvEuSgprCuk=
-----END SSH SIGNATURE-----
`;

/**
 * Verifies a signature that is known to be good.
 *
 * @throws StepError `StepRefused` where ssh-keygen is missing, too old (before OpenSSH 8.2), or says no
 */
export async function trySignatures(tools: {
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}): Promise<void> {
  const signers = [{ name: 'trial', key: KEY }];
  const found = await verifySignature({ by: 'trial', text: TEXT, signature: SIGNATURE, signers, ...tools });
  if (!found.valid) {
    throw refusal([`ssh-keygen on the PATH of the worker refuses a signature known to be good: ${found.why}`]);
  }
}

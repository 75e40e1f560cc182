/** Signatures over plan digests, as `ssh-keygen -Y sign` makes them (OpenSSH's PROTOCOL.sshsig). */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { refusal } from '../contract/errors.ts';
import type { ApprovalVerification } from '../contract/evidence/approval.ts';
import { samePerson, SIGNATURE_NAMESPACE } from '../contract/messages.ts';
import type { Signer } from '../contract/profile.ts';
import { ProcessNotStarted } from '../process/errors.ts';
import type { Redactor } from '../process/redactor.ts';
import { runProcess } from '../process/run.ts';

export interface SignatureToVerify {
  /** Who says to have signed. */
  readonly by: string;
  /** What was signed, to the byte. */
  readonly text: string;
  /** Armored, of the namespace `migration-runbook`. */
  readonly signature: string;
  /** Who may sign, with which key; somebody may have several. */
  readonly signers: readonly Signer[];
  readonly signal: AbortSignal;
  readonly redactor: Redactor;
}

/** Milliseconds; it takes some ten. */
const LIMIT = 20_000;

/**
 * Verifies a signature with `ssh-keygen -Y verify`. What a signature says about itself (key, namespace) is read only to say
 * why one is refused.
 *
 * @throws StepError `StepRefused` when there is no ssh-keygen
 */
export async function verifySignature(request: SignatureToVerify): Promise<ApprovalVerification> {
  const invalid = (why: string): ApprovalVerification => ({ valid: false, why });
  const { by, signers } = request;
  const own = signers.filter(({ name }) => samePerson(name, by));
  if (own.length === 0) return invalid(`no key of ${by} is known: approvals.signers of the profile names who can sign`);
  const found = readSignature(request.signature);
  if (found === undefined) {
    return invalid(
      'this is no SSH signature: "ssh-keygen -Y sign" writes one, from -----BEGIN SSH SIGNATURE----- to -----END SSH SIGNATURE-----',
    );
  }
  if (found.namespace !== SIGNATURE_NAMESPACE) {
    return invalid(
      `the signature was made for the namespace "${printable(found.namespace)}": sign with -n ${SIGNATURE_NAMESPACE}`,
    );
  }
  const signedBy = signers.filter(({ key }) => blobOf(key) === found.key);
  if (!own.some(({ key }) => blobOf(key) === found.key)) {
    const others = signedBy.map(({ name }) => name).join(', ');
    return invalid(
      others === ''
        ? `the signature was made with a key that approvals.signers does not know (${fingerprint(found.key)})`
        : `the signature was made with the key of ${others}, not of ${by}`,
    );
  }
  const answer = await verify(request, found.blob, own, request.text);
  if (answer === 'good') return { valid: true, key: fingerprint(found.key) };
  if (answer === 'unreadable') return invalid('the signature is damaged: ssh-keygen cannot read it');
  const overTheLine = await verify(request, found.blob, own, `${request.text}\n`);
  return invalid(
    overTheLine === 'good'
      ? 'the signature is over the digest and a line break: sign the 64 digits alone (printf %s, not echo)'
      : 'the signature is not over this plan: sign the 64 digits of its digest, nothing before or after them',
  );
}

async function verify(
  { signal, redactor }: SignatureToVerify,
  blob: Buffer,
  signers: readonly Signer[],
  text: string,
): Promise<'good' | 'other-text' | 'unreadable'> {
  const folder = await mkdtemp(path.join(tmpdir(), 'runbook-signature-'));
  try {
    const [allowed, given] = [path.join(folder, 'allowed_signers'), path.join(folder, 'signature')];
    // One principal of our own for all keys of this person: no spelling of a name can mean anything to ssh-keygen.
    const lines = signers.map(({ key }) => `approver namespaces="${SIGNATURE_NAMESPACE}" ${keyOf(key)}\n`);
    await writeFile(allowed, lines.join(''), { mode: 0o600 });
    await writeFile(given, armored(blob), { mode: 0o600 });
    const result = await runProcess({
      file: 'ssh-keygen',
      args: ['-Y', 'verify', '-f', allowed, '-I', 'approver', '-n', SIGNATURE_NAMESPACE, '-s', given],
      directory: folder,
      input: text,
      signal: AbortSignal.any([signal, AbortSignal.timeout(LIMIT)]),
      redactor,
      limits: { tail: 2000 },
    });
    if (result.kind === 'exited' && result.code === 0) return 'good';
    const said = `${result.stdoutTail}\n${result.stderrTail}`;
    if (/incorrect signature/i.test(said)) return 'other-text';
    // Its "no"; whatever else it says, it has not looked.
    if (/could not verify signature/i.test(said)) return 'unreadable';
    throw refusal([`ssh-keygen could not look at the signature: ${said.trim().slice(0, 300)}`]);
  } catch (error) {
    if (error instanceof ProcessNotStarted) {
      throw refusal(['signed approvals need ssh-keygen (OpenSSH 8.2 or newer) on the PATH of the worker']);
    }
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What is inside the armor: magic, version, public key, namespace (PROTOCOL.sshsig). */
function readSignature(
  text: string,
): { readonly blob: Buffer; readonly key: string; readonly namespace: string } | undefined {
  const body = /^\s*-----BEGIN SSH SIGNATURE-----(?<body>[A-Za-z0-9+/=\s]+)-----END SSH SIGNATURE-----\s*$/.exec(text)
    ?.groups?.['body'];
  if (body === undefined) return undefined;
  const blob = Buffer.from(body, 'base64');
  if (blob.subarray(0, 6).toString('latin1') !== 'SSHSIG') return undefined;
  const fields: Buffer[] = [];
  for (let at = 10; fields.length < 2; ) {
    if (at + 4 > blob.length) return undefined;
    const length = blob.readUInt32BE(at);
    if (at + 4 + length > blob.length) return undefined;
    fields.push(blob.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return { blob, key: fields[0]!.toString('base64'), namespace: fields[1]!.toString('utf8') };
}

/** As ssh-keygen writes it: what a paste has made of its line breaks does not matter. */
const armored = (blob: Buffer): string =>
  [
    '-----BEGIN SSH SIGNATURE-----',
    ...(blob.toString('base64').match(/.{1,70}/g) ?? []),
    '-----END SSH SIGNATURE-----',
    '',
  ].join('\n');

/** Type and key, without the comment. */
const keyOf = (key: string): string => key.trim().split(/\s+/).slice(0, 2).join(' ');

const blobOf = (key: string): string => Buffer.from(keyOf(key).split(' ')[1] ?? '', 'base64').toString('base64');

/** As `ssh-keygen -l` prints it. */
const fingerprint = (blob: string): string =>
  `SHA256:${createHash('sha256').update(Buffer.from(blob, 'base64')).digest('base64').replaceAll('=', '')}`;

const printable = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 60);

import { readdir } from 'node:fs/promises';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { sha256 } from '../../src/archive/canonical.ts';
import { type SignatureToVerify, verifySignature } from '../../src/integrations/ssh-signature.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createSshKey, signText, type SshKey } from '../ssh-keys.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const DIGEST = sha256('the plan');
let folder: string;
let erin: SshKey;
let frank: SshKey;
let stranger: SshKey;

beforeAll(async () => {
  folder = await temporaryDirectory('ssh-signature');
  [erin, frank, stranger] = await Promise.all([
    createSshKey(folder, 'erin'),
    createSshKey(folder, 'frank', ['-t', 'ecdsa', '-b', '384']),
    createSshKey(folder, 'stranger'),
  ]);
});

const verify = (signature: string, more: Partial<SignatureToVerify> = {}) =>
  verifySignature({
    by: 'erin@example.com',
    text: DIGEST,
    signature,
    signers: [
      { name: 'erin@example.com', key: erin.key },
      { name: 'frank@example.com', key: frank.key },
    ],
    signal: new AbortController().signal,
    redactor: createRedactor([]),
    ...more,
  });

const refused = (why: RegExp) => ({ valid: false, why: expect.stringMatching(why) as string });

describe('a signature over a plan digest', () => {
  it('is good when the person whose key it is made it over this digest', async () => {
    expect(await verify(await signText(erin, DIGEST))).toEqual({
      valid: true,
      key: expect.stringMatching(/^SHA256:[\w+/]{43}$/) as string,
    });
  });

  it('does not mind how the name is written, nor blanks around the armor', async () => {
    const signature = `\n  ${(await signText(erin, DIGEST)).replaceAll('\n', '\r\n')}`;
    expect(await verify(signature, { by: ' Erin@Example.COM ' })).toMatchObject({ valid: true });
  });

  it.each([
    ['ecdsa', ['-t', 'ecdsa']],
    ['rsa', ['-t', 'rsa', '-b', '2048']],
  ])('may be made with a key of type %s, one of several of a person', async (name, kind) => {
    const key = await createSshKey(folder, `key-${name}`, kind);
    const signers = [erin, key].map(({ key: line }) => ({ name: 'erin@example.com', key: line }));
    for (const one of [erin, key]) {
      expect(await verify(await signText(one, DIGEST), { signers })).toMatchObject({ valid: true });
    }
  });

  it('is refused over another digest', async () => {
    expect(await verify(await signText(erin, sha256('another plan')))).toEqual(refused(/not over this plan/));
  });

  it('is refused over the first digits of the digest', async () => {
    expect(await verify(await signText(erin, DIGEST.slice(0, 12)))).toEqual(refused(/64 digits/));
  });

  it('is refused over the digest with a line break, which is said', async () => {
    expect(await verify(await signText(erin, `${DIGEST}\n`))).toEqual(refused(/line break/));
  });

  it('is refused when it was made for another purpose', async () => {
    expect(await verify(await signText(erin, DIGEST, 'git'))).toEqual(refused(/namespace "git"/));
  });

  it('is refused with the key of somebody else, who is named', async () => {
    expect(await verify(await signText(frank, DIGEST))).toEqual(
      refused(/key of frank@example.com, not of erin@example.com/),
    );
  });

  it('is refused with a key nobody has', async () => {
    expect(await verify(await signText(stranger, DIGEST))).toEqual(refused(/does not know \(SHA256:/));
  });

  it('is refused of somebody whose key is not known', async () => {
    expect(await verify(await signText(erin, DIGEST), { by: 'gina@example.com' })).toEqual(
      refused(/no key of gina@example.com/),
    );
  });

  it('is refused when what it says of itself was changed: another key put in', async () => {
    const made = Buffer.from((await signText(stranger, DIGEST)).replaceAll(/-----.*-----/g, ''), 'base64');
    const [own, foreign] = [erin, stranger].map(({ key }) => Buffer.from(key.split(' ')[1]!, 'base64'));
    const at = made.indexOf(foreign!);
    const forged = Buffer.concat([made.subarray(0, at), own!, made.subarray(at + foreign!.length)]);
    const armored = `-----BEGIN SSH SIGNATURE-----\n${forged.toString('base64')}\n-----END SSH SIGNATURE-----`;
    expect(await verify(armored)).toEqual(refused(/not over this plan/));
  });

  it.each([
    ['nothing', ''],
    ['words', 'approved'],
    ['an empty armor', '-----BEGIN SSH SIGNATURE-----\n\n-----END SSH SIGNATURE-----'],
    ['something else in the armor', '-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----'],
    ['lengths beyond the end', '-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAf////8=\n-----END SSH SIGNATURE-----'],
  ])('is refused when it is %s', async (_name, signature) => {
    expect(await verify(signature)).toEqual(refused(/no SSH signature/));
  });

  it('is refused when its end is missing', async () => {
    const blob = Buffer.from((await signText(erin, DIGEST)).replaceAll(/-----.*-----/g, ''), 'base64');
    const armored = `-----BEGIN SSH SIGNATURE-----\n${blob.subarray(0, -20).toString('base64')}\n-----END SSH SIGNATURE-----`;
    expect(await verify(armored)).toEqual(refused(/damaged/));
  });

  it('leaves no file behind', async () => {
    const temporary = await temporaryDirectory('signature');
    vi.stubEnv('TMPDIR', temporary);
    onTestFinished(() => void vi.unstubAllEnvs());
    await verify(await signText(erin, DIGEST));
    expect(await readdir(temporary)).toEqual([]);
  });

  it('says by name what is missing where there is no ssh-keygen', async () => {
    const before = process.env['PATH'];
    const signature = await signText(erin, DIGEST);
    process.env['PATH'] = folder;
    try {
      await expect(verify(signature)).rejects.toMatchObject({
        type: 'StepRefused',
        message: expect.stringContaining('ssh-keygen') as string,
      });
    } finally {
      process.env['PATH'] = before;
    }
  });
});

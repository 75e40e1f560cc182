/** Keys and signatures as people make them: with ssh-keygen. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { text } from 'node:stream/consumers';

export interface SshKey {
  /** The private key's file. */
  readonly file: string;
  /** The public key's line. */
  readonly key: string;
}

/** @param folder an existing one; @param kind as ssh-keygen's `-t` and `-b` want it */
export async function createSshKey(
  folder: string,
  name: string,
  kind: readonly string[] = ['-t', 'ed25519'],
): Promise<SshKey> {
  const file = path.join(folder, name);
  await sshKeygen(['-q', ...kind, '-N', '', '-C', `${name} of a test`, '-f', file], '');
  return { file, key: (await readFile(`${file}.pub`, 'utf8')).trim() };
}

/** An armored signature. @param namespace default: that of plan digests */
export const signText = ({ file }: SshKey, content: string, namespace = 'migration-runbook'): Promise<string> =>
  sshKeygen(['-Y', 'sign', '-n', namespace, '-f', file], content);

async function sshKeygen(words: readonly string[], input: string): Promise<string> {
  const child = spawn('ssh-keygen', words, { stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.end(input);
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    }),
  ]);
  if (code !== 0) throw new Error(`ssh-keygen ${words[0] ?? ''} ended with ${String(code)}: ${stderr}`);
  return stdout;
}

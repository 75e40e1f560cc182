import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';

/** What a team's secrets manager holds: names such as `prod/whisper-transcriber/MIGRATOR_URL`, with their values. */
export type Secrets = Readonly<Record<string, string>>;

/** Writes one file a secret (mode 0600), and the command `secretctl read NAME` that prints one. Returns the command's folder. */
export async function writeSecrets(
  directory: string,
  secrets: Secrets,
): Promise<{ readonly secretsDirectory: string; readonly binDirectory: string }> {
  const secretsDirectory = join(directory, 'secrets');
  const binDirectory = join(directory, 'bin');
  await rm(secretsDirectory, { recursive: true, force: true });
  for (const [name, value] of Object.entries(secrets)) {
    const file = join(secretsDirectory, name);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeFile(file, value, { mode: 0o600 });
  }
  await mkdir(binDirectory, { recursive: true });
  await writeFile(join(binDirectory, 'secretctl'), secretctl, { mode: 0o755 });
  return { secretsDirectory, binDirectory };
}

const secretctl = `#!/bin/sh
# A secrets manager in one file: prints the secret of that name from the folder beside it.
# usage: secretctl read prod/whisper-transcriber/MIGRATOR_URL
[ "$1" = read ] && [ $# -eq 2 ] || { echo 'usage: secretctl read NAME' >&2; exit 2; }
case /$2/ in */../* | //*) echo "secretctl: $2 is not a name" >&2; exit 2 ;; esac
file=$(dirname "$0")/../secrets/$2
[ -f "$file" ] || { echo "secretctl: there is no secret $2" >&2; exit 1; }
cat "$file"
`;

/** The X25519 key pair that backups are encrypted for; made once, so that old backups stay readable. */
export async function ageKeys(directory: string): Promise<{ readonly identity: string; readonly recipient: string }> {
  const file = join(directory, 'age-identity');
  if (!existsSync(file)) {
    await mkdir(directory, { recursive: true });
    await writeFile(file, await generateIdentity(), { mode: 0o600 });
  }
  const identity = await readFile(file, 'utf8');
  return { identity, recipient: await identityToRecipient(identity) };
}

/** Writes an environment file (mode 0600) the way people do: comments, \`export\`, quotes of both kinds, spaces and \`#\` in values. */
export async function writeEnvironmentFile(
  file: string,
  values: { readonly databaseUrl: string; readonly redisUrl: string; readonly adminPassword: string },
): Promise<void> {
  const lines = [
    '# Staging of the Whisper Transcriber. Owner: media team',
    `export DATABASE_URL="${values.databaseUrl}" # the migrator's`,
    `REDIS_URL=${values.redisUrl}`,
    '',
    `ADMIN_PASSWORD='${values.adminPassword}'`,
    'SERVICE_TITLE="Whisper Transcriber # staging"',
    'SUPPORT_CONTACT = Media Team   # no quotes: ends before the hash',
    '',
  ];
  await writeFile(file, lines.join('\n'), { mode: 0o600 });
}

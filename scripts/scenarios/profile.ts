/** The example service's profile for one embedded stack: what a team would write by hand, with this stack's addresses. */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { stringify } from 'yaml';
import type { ProfileDocument } from '../../src/profile/schema.ts';
import type { Example } from '../stack/example.ts';

const SERVICE = 'whisper-transcriber';

/** What a scenario wants otherwise. */
export interface ProfileChanges
  extends Partial<
    Pick<
      ProfileDocument,
      'recovery' | 'window' | 'switches' | 'monitoring' | 'timeouts' | 'fence' | 'rehearsal' | 'guard'
    >
  > {
  readonly alembic?: Partial<ProfileDocument['alembic']>;
  readonly approvals?: Partial<ProfileDocument['approvals']>;
  readonly backup?: Partial<ProfileDocument['backup']>;
  /** Default `whisper-transcriber`. */
  readonly service?: string;
  /** Last word on the whole document, for trials of profiles that are wrong. */
  readonly edit?: (document: ProfileDocument) => unknown;
}

export interface WrittenProfile {
  readonly service: string;
  /** Folder with the profile, to be given to the worker. */
  readonly directory: string;
  /** Folder that collects announcements, ticket entries and notifications. */
  readonly outbox: string;
}

export async function writeProfile(example: Example, changes: ProfileChanges = {}): Promise<WrittenProfile> {
  const directory = path.join(example.directory, 'profiles');
  const outbox = path.join(example.directory, 'outbox');
  await mkdir(directory, { recursive: true });
  await mkdir(outbox, { recursive: true });
  await writeTools(example);
  const service = changes.service ?? SERVICE;
  const document = documentFor(example, outbox, changes);
  await writeFile(path.join(directory, `${service}.yaml`), stringify(changes.edit?.(document) ?? document));
  return { service, directory, outbox };
}

function documentFor(example: Example, outbox: string, changes: ProfileChanges): ProfileDocument {
  const { stack, apiUrl } = example;
  if (!stack.s3 || !stack.postgres.primary || apiUrl === undefined) {
    throw new Error('the example needs primary, S3 and its API to be migrated');
  }
  const secretctl = path.join(example.binDirectory, 'secretctl');
  const secret = (name: string): { command: string[] } => ({ command: [secretctl, 'read', name] });
  const production = (name: string) => secret(`prod/${SERVICE}/${name}`);
  const staging = (name: string) => secret(`staging/${SERVICE}/${name}`);
  const tool = (name: string): string => path.join(example.binDirectory, name);
  const outgoing = (name: string) => [{ file: path.join(outbox, name) }];
  const { python } = stack.venv;
  const toggle = (kind: 'freeze' | 'silence' | 'notice', name: string) => ({
    name,
    kind,
    state: { command: [tool('switchctl'), name, 'state'] },
    engage: { command: [tool('switchctl'), name, 'on'] },
    release: { command: [tool('switchctl'), name, 'off'] },
  });

  return {
    service: changes.service ?? SERVICE,
    description: 'The example service on the embedded stack',
    repository: { url: example.repository },
    review: { command: [tool('reviewctl'), '{{releaseTag}}'] },
    databases: {
      production: {
        administrator: production('ADMINISTRATOR_URL'),
        migrator: production('MIGRATOR_URL'),
        backup: production('BACKUP_URL'),
        applicationRoles: ['whisper_app'],
        application: production('DATABASE_URL'),
        standbys: stack.postgres.replica
          ? [{ name: stack.postgres.replica.name, administrator: production('REPLICA_ADMINISTRATOR_URL') }]
          : [],
        tls: 'allow',
      },
      staging: { administrator: staging('ADMINISTRATOR_URL'), migrator: staging('MIGRATOR_URL') },
      scratch: { administrator: secret('scratch/ADMINISTRATOR_URL') },
    },
    postgresPrograms: stack.postgres.primary.binDirectory,
    alembic: { python, urlScheme: 'postgresql+psycopg', ...changes.alembic },
    rehearsal: {
      // The copy has production's accounts.
      flows: flows(production('ADMIN_PASSWORD')),
      smoke: [{ name: 'recordings are there', sql: 'SELECT count(*) > 0 FROM public.recordings', expect: true }],
      ...changes.rehearsal,
    },
    guard: changes.guard ?? {},
    lint: { program: path.join(stack.venv.bin, 'squawk') },
    backup: {
      bucket: stack.s3.bucket,
      region: stack.s3.region,
      endpoint: stack.s3.endpoint,
      forcePathStyle: true,
      accessKeyId: secret('backups/ACCESS_KEY_ID'),
      secretAccessKey: secret('backups/SECRET_ACCESS_KEY'),
      recipients: [example.ageRecipient],
      identity: secret('backups/AGE_IDENTITY'),
      ...changes.backup,
    },
    restore: { capacity: { command: [tool('capacityctl')] } },
    fence: changes.fence ?? 'read-only',
    staging: {
      environmentFile: example.environmentFile,
      tests: [python, '-m', 'pytest', '-q', 'tests/test_migrations.py'],
    },
    application: {
      deployed: { command: [tool('deployctl'), 'release'] },
      boot: {
        command: [python, '-m', 'uvicorn', 'api.main:app', '--host', '127.0.0.1', '--port', '{{port}}'],
        readyPath: '/healthz',
      },
      flows: flows(staging('ADMIN_PASSWORD')),
    },
    announce: outgoing('operations-channel.md'),
    switches: changes.switches ?? [
      toggle('notice', 'status-page'),
      toggle('silence', 'alerts'),
      toggle('freeze', 'deployments'),
      {
        name: 'scheduled-jobs',
        celery: {
          python,
          app: 'api.worker',
          queues: ['scheduled'],
          environment: { REDIS_URL: production('REDIS_URL') },
        },
      },
    ],
    checks: {
      smoke: [
        {
          name: 'API health',
          http: `${apiUrl}/healthz`,
          expect: { status: [200], json: { '/status': 'ok', '/database': 'ok', '/data': 'ok' } },
        },
        { name: 'recordings are there', sql: 'SELECT count(*) > 0 FROM public.recordings', expect: true },
      ],
      smokeWrites: [
        {
          name: 'Celery dispatch',
          command: [python, 'smoke/celery_ping.py'],
          directory: 'checkout',
          environment: { REDIS_URL: production('REDIS_URL') },
        },
        {
          name: 'transcription end to end',
          command: [python, 'smoke/transcription.py', '--base-url', apiUrl],
          directory: 'checkout',
        },
      ],
    },
    monitoring: changes.monitoring ?? {
      settle: '1s',
      sampleEvery: '200ms',
      measures: [
        { name: 'API latency (ms)', http: `${apiUrl}/healthz`, limit: { ratio: 3, absolute: 200 }, samples: 3 },
        {
          name: 'failed jobs',
          sql: "SELECT count(*) FROM public.jobs WHERE state = 'failed'",
          limit: { ratio: 1, absolute: 0 },
          samples: 1,
        },
        { name: 'deadlocks', deadlocks: true },
      ],
    },
    schema: [{ kind: 'table', name: 'public.recordings' }],
    ticket: outgoing('ticket.md'),
    stakeholders: outgoing('stakeholders.md'),
    retrospective: outgoing('retrospectives.md'),
    approvals: {
      required: 1,
      timeout: '15m',
      remindEvery: '5m',
      notify: outgoing('approvals.md'),
      ...changes.approvals,
    },
    window: changes.window ?? { length: '10m' },
    ...(changes.timeouts && { timeouts: changes.timeouts }),
    recovery: changes.recovery ?? { rollback: 'automatic', escalate: outgoing('on-call.md') },
  };
}

/** What the service must be able to do, whichever database it stands on. */
const flows = (adminPassword: { command: string[] }): NonNullable<ProfileDocument['application']>['flows'] => [
  {
    name: 'upload and playback',
    requests: [
      {
        name: 'upload',
        method: 'POST',
        path: '/recordings',
        upload: { fileName: 'dry-run.wav', contentType: 'audio/wav', content: 'dry run {{runId}}' },
        expect: { status: [201] },
        save: { recording: '/id' },
      },
      {
        name: 'playback',
        path: '/recordings/{{recording}}/audio',
        expect: { status: [200], contains: ['dry run {{runId}}'] },
      },
    ],
  },
  {
    name: 'admin login',
    requests: [
      {
        name: 'login',
        method: 'POST',
        path: '/auth/login',
        json: { username: 'admin' },
        secrets: { '/password': adminPassword },
        expect: { status: [200] },
        save: { token: '/token' },
      },
      {
        name: 'summary',
        path: '/admin/summary',
        headers: { Authorization: 'Bearer {{token}}' },
        expect: { status: [200] },
      },
    ],
  },
];

/** What a team's deployment tool, alerting and review system would be: each keeps its state in a file and can be asked for it. */
async function writeTools(example: Example): Promise<void> {
  const state = path.join(example.directory, 'switches');
  await mkdir(state, { recursive: true });
  const tools: Record<string, string> = {
    switchctl: `#!/bin/sh
# usage: switchctl NAME on|off|state
file="${state}/$1"
case $2 in
  on) touch "$file" ;;
  off) rm -f "$file" ;;
  state) if [ -e "$file" ]; then echo engaged; else echo released; fi ;;
  *) echo 'usage: switchctl NAME on|off|state' >&2; exit 2 ;;
esac
`,
    capacityctl: `#!/bin/sh
# usage: capacityctl: free bytes where the servers keep their data, as JSON. One number: all of them lie on one volume.
df --output=avail -B1 "${example.directory}" | tail -n 1 | tr -d ' '
`,
    deployctl: `#!/bin/sh
# usage: deployctl release: the tag of the release that is deployed now.
[ "$1" = release ] || { echo 'usage: deployctl release' >&2; exit 2; }
echo ${example.tag}
`,
    reviewctl: `#!/bin/sh
# usage: reviewctl TAG: the review and CI state of a release, as the example's review system knows it.
commit=$(git -c safe.directory='*' -C "${example.repository}" rev-parse "refs/tags/$1^{commit}") || exit 1
printf '{"commit":"%s","reviewed":true,"reviewers":["erin@example.com"],"checks":"success"}\\n' "$commit"
`,
  };
  for (const [name, text] of Object.entries(tools)) {
    const file = path.join(example.binDirectory, name);
    await writeFile(file, text);
    await chmod(file, 0o755);
  }
}

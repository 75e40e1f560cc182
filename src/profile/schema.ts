/** Schema of the YAML a person writes: strict, completed with defaults, turned into the canonical `Profile`. */
import { z } from 'zod';
import { OUTCOMES } from '../contract/outcome.ts';
import type { Fence, Measure, Profile, RestoreProfile, ReviewProfile, Standby, Switch } from '../contract/profile.ts';
import { action, check, commandAction, flow, ownStep, question, sqlCheck } from './schema-actions.ts';
import {
  choice,
  commandLine,
  duration,
  environment,
  environmentName,
  headers,
  innerPath,
  object,
  pointer,
  secret,
  size,
  text,
  webAddress,
  wordOr,
} from './schema-values.ts';

const lintRule = z.string().regex(/^[a-z0-9-]+$/, 'must be the name of a rule, e.g. ban-drop-column');

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const repository = object({
  url: text.refine((value) => !value.startsWith('-'), 'must not begin with a dash'),
  prepare: commandLine.optional(),
  prepareTimeout: duration('1s', '2h').default(10 * MINUTE),
});

const review = choice({
  command: object({ ...commandAction.in.shape, minimumReviewers: z.int().min(0).default(1) }).transform(
    ({ minimumReviewers, ...rest }): ReviewProfile => ({
      source: { kind: 'command', action: { kind: 'command', ...rest } },
      minimumReviewers,
    }),
  ),
  github: object({
    github: object({
      repository: z.string().regex(/^[\w.-]+\/[\w.-]+$/, 'must be owner/name'),
      token: secret,
      apiUrl: webAddress.default('https://api.github.com'),
    }),
    minimumReviewers: z.int().min(0).default(1),
  }).transform(
    ({ github, minimumReviewers }): ReviewProfile => ({ source: { kind: 'github', ...github }, minimumReviewers }),
  ),
  gitlab: object({
    gitlab: object({
      project: z.string().regex(/^(\d+|[\w.-]+(\/[\w.-]+)+)$/, 'must be group/name or the number of the project'),
      token: secret,
      apiUrl: webAddress.default('https://gitlab.com/api/v4'),
    }),
    minimumReviewers: z.int().min(0).default(1),
  }).transform(
    ({ gitlab, minimumReviewers }): ReviewProfile => ({ source: { kind: 'gitlab', ...gitlab }, minimumReviewers }),
  ),
});

const standby = wordOr(
  text.transform((name): Standby => ({ name, sessions: 'end' })),
  choice({
    administrator: object({ name: text, administrator: secret }).transform(
      (value): Standby => ({
        ...value,
        sessions: 'end',
      }),
    ),
    sessions: object({ name: text, sessions: z.literal('none') }),
  }),
  '{name, administrator: <reference>}, or {name, sessions: none} where nobody reads on it',
);

const databases = object({
  production: object({
    administrator: secret,
    migrator: secret,
    backup: secret,
    applicationRoles: z.array(text).min(1),
    maintenanceDatabase: text.default('postgres'),
    application: secret.optional(),
    standbys: z.array(standby),
    maximumLagBytes: size.default(16 * 1024 ** 2),
    maximumLag: duration('100ms', '1h').default(10_000),
    tls: z.enum(['require', 'allow']).default('require'),
    maximumTransactionAge: duration('1s', '24h').default(5 * MINUTE),
  }),
  staging: object({ administrator: secret, migrator: secret }),
  scratch: object({ administrator: secret }),
});

const alembic = object({
  python: text,
  config: innerPath.default('alembic.ini'),
  directory: innerPath.default('.'),
  urlVariable: environmentName.default('DATABASE_URL'),
  urlScheme: z
    .string()
    .regex(/^postgres(ql)?(\+[a-z0-9]+)?$/, 'must be a scheme of SQLAlchemy such as postgresql+psycopg')
    .default('postgresql'),
  environment,
  versionTable: object({ schema: text.default('public'), table: text.default('alembic_version') }).prefault({}),
  commands: object({
    upgrade: commandLine.optional(),
    downgrade: commandLine.optional(),
    heads: commandLine.optional(),
  }).prefault({}),
});

const backup = object({
  bucket: z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'must be the name of a bucket'),
  prefix: z
    .string()
    .regex(
      /^(?:[\w-][\w.-]*(?:\/[\w-][\w.-]*)*\/?)?$/,
      'must be made of letters, digits, dots, dashes and underscores, with single slashes between names that do not begin with a dot',
    )
    .transform((value) => value.replace(/\/+$/, ''))
    .default('migration-runbook'),
  region: text.default('us-east-1'),
  endpoint: webAddress.optional(),
  forcePathStyle: z.boolean().default(false),
  accessKeyId: secret,
  secretAccessKey: secret,
  recipients: z
    .array(
      z.string().regex(/^age1[02-9ac-hj-np-z]{58}$/, 'must be an age recipient (age1...), as printed by age-keygen -y'),
    )
    .min(1),
  identity: secret,
  maximumAge: duration('1m', '7d').default(2 * HOUR),
  serverSideEncryption: z.enum(['AES256', 'aws:kms']).optional(),
  kmsKeyId: text.optional(),
  objectLock: object({ mode: z.enum(['GOVERNANCE', 'COMPLIANCE']), retention: duration('1h', '36500d') }).optional(),
  tags: z
    .record(z.string().regex(/^.{1,128}$/su, 'must have 1 to 128 characters'), z.string().max(256))
    .refine((tags) => Object.keys(tags).length <= 10, 'must be 10 at most: a store takes no more on an object')
    .default({}),
  storageClass: z
    .string()
    .regex(/^[A-Z][A-Z_]+$/, 'must be a storage class of the store, e.g. STANDARD_IA')
    .refine(
      (name) => !['GLACIER', 'DEEP_ARCHIVE'].includes(name),
      'is an archive that cannot be read at once, and every backup is: move backups there later, by a lifecycle rule',
    )
    .optional(),
  sampleAbove: size.default(20 * 1024 ** 3),
});

const restore = object({
  jobs: z.int().min(1).max(64).default(2),
  capacity: choice({
    command: object(commandAction.in.shape).transform((value): RestoreProfile['capacity'] => ({
      kind: 'command',
      action: { kind: 'command', ...value },
    })),
    waiver: object({ waiver: z.string().min(10).max(500) }).transform(({ waiver }): RestoreProfile['capacity'] => ({
      kind: 'waiver',
      reason: waiver,
    })),
  }),
  quarantine: duration('1m', '365d').default(14 * 24 * HOUR),
});

const fence = wordOr(
  z.enum(['none', 'read-only']).transform((kind): Fence => ({ kind })),
  choice({
    maintenance: object({
      maintenance: object({
        state: question.optional(),
        statePointer: pointer.optional(),
        engage: action,
        release: action,
        check,
      }).refine((value) => value.statePointer === undefined || value.state !== undefined, {
        path: ['statePointer'],
        error: 'points into the answer of state: give state as well',
      }),
    }).transform(
      ({ maintenance: { check: shown, ...mechanism } }): Fence => ({
        kind: 'maintenance',
        mechanism: { kind: 'actions', ...mechanism },
        check: shown,
      }),
    ),
  }),
  'none, read-only, or {maintenance: {engage, release, check}}',
);

const recoveryPoint = object({
  restorePoint: z.boolean().default(false),
  snapshot: commandAction.optional(),
});

const staging = object({
  environmentFile: text,
  tests: commandLine,
  testsTimeout: duration('1s', '24h').default(15 * MINUTE),
});

const rehearsal = object({
  environment: environment.removeDefault().optional(),
  flows: z.array(flow).min(1).optional(),
  smoke: z.array(sqlCheck).default([]),
  maximumAge: duration('1m', '30d').default(24 * HOUR),
  maximumGrowth: z.number().min(0).max(100).default(0.2),
});

const guard = object({
  lockTimeout: duration('10ms', '10m').default(3_000),
  concurrentLockTimeout: duration('1s', '24h').default(30 * MINUTE),
  statementTimeout: duration('0s', '24h').default(0),
  tries: z.int().min(1).max(100).default(5),
  patience: duration('0s', '24h').default(10 * MINUTE),
  endBlockersAfter: z.union([z.literal('never'), duration('0s', '24h')]).default('never'),
});

const lint = object({
  program: text.default('squawk'),
  refuse: z.array(lintRule).default([]),
  exclude: z.array(lintRule).default([]),
});

const deployed = choice({
  command: object({ ...commandAction.in.shape, required: z.boolean().default(true) }).transform(
    ({ required, ...rest }): NonNullable<Profile['application']['deployed']> => ({
      source: { kind: 'command', action: { kind: 'command', ...rest } },
      required,
    }),
  ),
  http: object({
    http: webAddress,
    headers,
    pointer,
    timeout: duration('1s', '1h').default(30_000),
    required: z.boolean().default(true),
  }).transform(
    ({ http, headers: fields, pointer: at, timeout, required }): NonNullable<Profile['application']['deployed']> => ({
      source: {
        kind: 'http',
        action: {
          kind: 'http',
          method: 'GET',
          url: http,
          headers: fields,
          expect: { status: [200], json: {}, contains: [] },
          timeout,
        },
        pointer: at,
      },
      required,
    }),
  ),
});

const signer = object({
  name: z
    .string()
    .regex(/^[^\s,*?!"]+$/, 'must be one word without blanks, commas and wildcards: the "by" of the approval'),
  key: z
    .string()
    .regex(
      /^(sk-)?(ssh|ecdsa)-[\w@.-]+ [A-Za-z0-9+/]+={0,3}( .*)?$/,
      'must be a public key as ssh-keygen writes it: ssh-ed25519 AAAA...',
    ),
});

const application = object({
  deployed: deployed.optional(),
  boot: object({
    command: commandLine,
    environment,
    readyPath: z.string().regex(/^\/[^\s]*$/, 'must be a path beginning with /'),
    timeout: duration('1s', '1h').default(MINUTE),
  }),
  flows: z.array(flow).min(1),
});

const outcome = z.enum(OUTCOMES);
const switchKeys = {
  name: text,
  kind: z.enum(['freeze', 'jobs', 'silence', 'notice', 'pooler']),
  keepAfter: z.array(outcome).default([]),
};

const switches = choice({
  engage: object({
    ...switchKeys,
    state: question.optional(),
    statePointer: pointer.optional(),
    engage: action,
    release: action,
  })
    .refine((value) => value.statePointer === undefined || value.state !== undefined, {
      path: ['statePointer'],
      error: 'points into the answer of state: give state as well',
    })
    .transform(
      ({ name, kind, keepAfter, ...mechanism }): Switch => ({
        name,
        kind,
        mechanism: { kind: 'actions', ...mechanism },
        keepAfter,
      }),
    ),
  celery: object({
    ...switchKeys,
    kind: switchKeys.kind.default('jobs'),
    celery: object({
      python: text,
      app: z.string().regex(/^[\w.]+(:[\w.]+)?$/, 'must be the application as celery -A takes it, e.g. api.worker'),
      queues: z.array(text).min(1),
      environment,
      timeout: duration('1s', '10m').default(20_000),
    }),
  }).transform(
    ({ name, kind, keepAfter, celery }): Switch => ({
      name,
      kind,
      mechanism: { kind: 'celery', ...celery },
      keepAfter,
    }),
  ),
});

const measureKeys = {
  name: text,
  limit: object({ ratio: z.number().min(0).default(1.5), absolute: z.number().min(0).default(0) }).prefault({}),
  samples: z.int().min(1).max(100).default(3),
};

const measure = choice({
  sql: object({ ...measureKeys, sql: text }).transform(
    ({ sql, ...rest }): Measure => ({ ...rest, source: { kind: 'sql', query: sql } }),
  ),
  http: object({ ...measureKeys, http: webAddress, pointer: pointer.optional(), headers }).transform(
    ({ http, pointer: at, headers: fields, ...rest }): Measure => ({
      ...rest,
      source: { kind: 'http', url: http, ...(at === undefined ? {} : { pointer: at }), headers: fields },
    }),
  ),
  prometheus: object({ ...measureKeys, prometheus: webAddress, query: text, headers }).transform(
    ({ prometheus, query, headers: fields, ...rest }): Measure => ({
      ...rest,
      source: { kind: 'prometheus', url: prometheus.replace(/\/+$/, ''), query, headers: fields },
    }),
  ),
  deadlocks: object({
    ...measureKeys,
    deadlocks: z.literal(true),
    // A counter only grows: what counts is how many came on top.
    limit: object({ ratio: z.number().min(0).default(1), absolute: z.number().min(0).default(0) }).prefault({}),
    samples: z.literal(1).default(1),
  }).transform(({ name, limit, samples }): Measure => ({ name, limit, samples, source: { kind: 'deadlocks' } })),
});

const schemaExpectation = object({
  kind: z.enum(['table', 'column', 'index', 'constraint', 'type']),
  name: z.string().regex(/^[^.\s][^.]*(\.[^.]+){1,2}$/, 'must be schema.name, or schema.table.column'),
  releases: text.optional(),
});

export const profileSchema = object({
  service: z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be made of lower-case letters, digits, dot, dash, underscore'),
  description: z.string().max(1_000).default(''),
  repository,
  review,
  databases,
  postgresPrograms: text.optional(),
  alembic,
  backup,
  restore,
  fence: fence.default({ kind: 'none' }),
  recoveryPoint: recoveryPoint.prefault({}),
  staging,
  rehearsal: rehearsal.prefault({}),
  guard: guard.prefault({}),
  lint: lint.prefault({}),
  application,
  announce: z.array(action).min(1),
  switches: z.array(switches).default([]),
  checks: object({ smoke: z.array(check).min(1), smokeWrites: z.array(check).default([]) }),
  monitoring: object({
    measures: z.array(measure).min(1),
    settle: duration('0s', '24h').default(MINUTE),
    sampleEvery: duration('100ms', '1h').default(5_000),
  }),
  schema: z.array(schemaExpectation).default([]),
  ticket: z.array(action).min(1),
  stakeholders: z.array(action).min(1),
  retrospective: z.array(action).min(1),
  approvals: object({
    required: z.int().min(1).max(20).default(1),
    approvers: z.array(text).default([]),
    timeout: duration('1s', '30d').default(4 * HOUR),
    remindEvery: duration('1s', '7d').default(30 * MINUTE),
    notify: z.array(action).min(1),
    signers: z.array(signer).default([]),
    signatures: z.enum(['optional', 'required']).default('optional'),
  }),
  qa: object({
    required: z.boolean().default(false),
    timeout: duration('1s', '30d').default(2 * HOUR),
    onTimeout: z.enum(['keep', 'recovery']).default('keep'),
  }).prefault({}),
  window: object({ length: duration('1s', '7d').default(HOUR) }).prefault({}),
  recovery: object({
    rollback: z.enum(['ask', 'automatic', 'never']).default('ask'),
    restore: z.enum(['ask', 'automatic']).default('ask'),
    remindEvery: duration('1s', '7d').default(15 * MINUTE),
    escalate: z.array(action).default([]),
  }).prefault({}),
  steps: z.array(ownStep).default([]),
  timeouts: z.record(z.string(), duration('1s', '30d')).default({}),
}) satisfies z.ZodType<Omit<Profile, 'home'>>;

/** What is written in the file, for whoever generates one. */
export type ProfileDocument = z.input<typeof profileSchema>;

/**
 * Activities that answer as told, for tests of the workflow's own decisions on Temporal's time-skipping server: order,
 * waiting, refusals, recovery choices. What the real activities do is tested on real parts in `integration/` and `faults/`.
 */
import type { MigrationActivities } from '../../src/contract/activities.ts';
import type { BackupEvidence } from '../../src/contract/evidence/backup.ts';
import type { DatabaseIdentity, ProductionState } from '../../src/contract/evidence/production.ts';
import type { RestoreEvidence, SwapEvidence, WayBackCost } from '../../src/contract/evidence/restore.ts';
import type { BackedUpRows, Reality, RollbackEvidence } from '../../src/contract/evidence/rollback.ts';
import type { StoredDocument } from '../../src/contract/evidence/step.ts';
import type { GraphEvidence } from '../../src/contract/evidence/tooling.ts';
import type { MigrationPlan } from '../../src/contract/plan.ts';
import type { Profile } from '../../src/contract/profile.ts';
import type { RehearsalTrial } from '../../src/contract/evidence/rehearsal.ts';
import type { RunReport } from '../../src/contract/report.ts';

const secret = { kind: 'environment', name: 'SECRET' } as const;
const document: StoredDocument = { uri: 's3://evidence/document', sha256: '0'.repeat(64), bytes: 1 };
export const swapped: SwapEvidence = {
  database: 'whisper',
  keptAside: 'whisper_before_1',
  endedSessions: 1,
  shutOut: 10,
  standbySessions: 0,
  quarantineUntil: '',
  versionRows: ['0001'],
  openItems: [],
};
const identity: DatabaseIdentity = {
  systemIdentifier: '7000000000000000001',
  database: 'whisper',
  oid: 16_384,
  timeline: 1,
  serverVersion: '18.6',
  serverMajor: 18,
  encoding: 'UTF8',
  sizeBytes: 1,
};

export const profile: Profile = {
  service: 'whisper-transcriber',
  description: '',
  home: '/profiles',
  repository: { url: '/repository', prepareTimeout: 60_000 },
  review: {
    source: {
      kind: 'command',
      action: { kind: 'command', command: ['true'], directory: 'profile', environment: {}, timeout: 1000 },
    },
    minimumReviewers: 1,
  },
  databases: {
    production: {
      administrator: secret,
      migrator: secret,
      backup: secret,
      applicationRoles: ['app'],
      maintenanceDatabase: 'postgres',
      standbys: [],
      maximumLagBytes: 1,
      maximumLag: 1,
      tls: 'allow',
      maximumTransactionAge: 1000,
    },
    staging: { administrator: secret, migrator: secret },
    scratch: { administrator: secret },
  },
  alembic: {
    python: 'python',
    config: 'alembic.ini',
    directory: '.',
    urlVariable: 'DATABASE_URL',
    urlScheme: 'postgresql+psycopg',
    environment: {},
    versionTable: { schema: 'public', table: 'alembic_version' },
    commands: {},
  },
  backup: {
    bucket: 'backups',
    prefix: 'runbook',
    region: 'us-east-1',
    forcePathStyle: true,
    accessKeyId: secret,
    secretAccessKey: secret,
    recipients: ['age1example'],
    identity: secret,
    maximumAge: 3_600_000,
    tags: {},
    sampleAbove: 1,
  },
  restore: { jobs: 1, capacity: { kind: 'waiver', reason: 'a scripted server' }, quarantine: 1 },
  fence: { kind: 'none' },
  recoveryPoint: { restorePoint: false },
  staging: { environmentFile: '.env.staging', tests: ['pytest'], testsTimeout: 60_000 },
  rehearsal: { smoke: [], maximumAge: 86_400_000, maximumGrowth: 0.2 },
  guard: {
    lockTimeout: 1000,
    concurrentLockTimeout: 1000,
    statementTimeout: 0,
    tries: 1,
    patience: 0,
    endBlockersAfter: 'never',
  },
  lint: { program: 'squawk', refuse: [], exclude: [] },
  application: { boot: { command: ['true'], environment: {}, readyPath: '/', timeout: 1000 }, flows: [] },
  announce: [],
  switches: [
    {
      name: 'deployments',
      kind: 'freeze',
      mechanism: {
        kind: 'actions',
        engage: { kind: 'file', path: 'x' },
        release: { kind: 'file', path: 'x' },
      },
      keepAfter: [],
    },
  ],
  checks: { smoke: [], smokeWrites: [] },
  monitoring: { measures: [], settle: 0, sampleEvery: 0 },
  schema: [],
  ticket: [{ kind: 'file', path: 'ticket.md' }],
  stakeholders: [{ kind: 'file', path: 'stakeholders.md' }],
  retrospective: [{ kind: 'file', path: 'retrospectives.md' }],
  approvals: {
    required: 1,
    approvers: [],
    timeout: 3_600_000,
    remindEvery: 600_000,
    notify: [{ kind: 'file', path: 'gate.md' }],
    signers: [],
    signatures: 'optional',
  },
  qa: { required: false, timeout: 60_000, onTimeout: 'keep' },
  window: { length: 600_000 },
  recovery: {
    rollback: 'ask',
    restore: 'ask',
    remindEvery: 600_000,
    escalate: [{ kind: 'file', path: 'escalation.md' }],
  },
  steps: [],
  timeouts: {},
};

const graph: GraphEvidence = {
  startRevisions: ['0001'],
  targetRevision: '0002',
  targetRevisions: ['0002'],
  path: [
    {
      revision: '0002',
      downRevisions: ['0001'],
      dependsOn: [],
      branchLabels: [],
      file: 'versions/0002.py',
      sha256: '0'.repeat(64),
      doc: '',
      transactional: 'yes',
      outsideTransaction: 'nothing',
      downgradeTransactional: 'yes',
      downgrade: 'present',
      operations: ['add_column'],
    },
  ],
  downgrade: { kind: 'planned', commands: ['0001'] },
  risks: [],
  unknown: [],
};

export const production: ProductionState = {
  identity,
  versionRows: ['0001'],
  versioned: 'versioned',
  objectMapDigest: 'before',
  objectMap: document,
  invalidIndexes: [],
  migratorSessions: 0,
  migratorSettings: [],
  otherSessions: [],
};

const restored: RestoreEvidence = {
  freshDatabase: 'fresh',
  tables: 1,
  rows: 1,
  sequences: 0,
  milliseconds: 1,
  compared: { checksums: 1, samples: 0, largeObjects: 0 },
  cosmetic: [],
  timings: { data: 1, indexes: 1, compare: 1 },
};

/** A rehearsal that found nothing wrong. */
export const trial = (): RehearsalTrial => ({
  at: new Date().toISOString(),
  upgrade: {
    milliseconds: 100,
    revisions: [{ revision: '0002', milliseconds: 90, statements: 1 }],
    slowest: [],
    locks: [],
    rewrites: [],
    walBytes: 1,
    growthBytes: 1,
    document,
    reporter: { kind: 'loaded' },
  },
  smoke: [],
  deployed: { kind: 'not-tried', why: 'scripted' },
  downgrade: { commands: ['0001'], milliseconds: 50 },
  verdict: { kind: 'lossless' },
  again: { milliseconds: 100 },
  dropped: [],
  mapBefore: document,
  mapAfter: document,
  schemaChange: { added: ['column public.recordings.language'], removed: [], changed: [] },
  imitated: { login: 'svc_scratch_1_migrator', role: 'migrator', differences: [] },
  findings: [],
  unknown: [],
  log: document,
});

export const wayBack = (basis: WayBackCost['basis'], fencedSince: string | undefined): WayBackCost => ({
  basis,
  since: '',
  backupAge: 60_000,
  tables: [{ table: 'public.recordings', inserted: 3, updated: 2, deleted: 1 }],
  furtherTables: 0,
  total: { inserted: 3, updated: 2, deleted: 1 },
  unknown: [],
  by: fencedSince === undefined ? 'anybody' : 'migration',
  predictedMilliseconds: 1000,
});

export const rolledBack: RollbackEvidence = {
  commands: ['0001'],
  versionRows: ['0001'],
  objectMapDigest: '',
  resumed: false,
  milliseconds: 1,
  objects: 'equal',
  reordered: [],
  differences: [],
  uncounted: null,
  log: document,
};

/** What comparing rows with the backup found. */
export const compared = (findings: readonly string[]): BackedUpRows => ({
  findings,
  tables: 3,
  rows: 7,
  samples: 0,
  largeObjects: 0,
  milliseconds: 1,
});

const notScripted = async (): Promise<never> => {
  throw new Error('a migration has no drill');
};

/** What the scripted world looks like and what was done to it. */
export interface World {
  readonly calls: string[];
  readonly reports: RunReport[];
  reality: Reality;
}

export interface Scripted {
  readonly world: World;
  readonly activities: MigrationActivities;
}

export function scriptedActivities(
  overrides: (world: World) => Partial<MigrationActivities> = () => ({}),
  changed: Partial<Profile> = {},
): Scripted {
  const world: World = { calls: [], reports: [], reality: { kind: 'unchanged' } };
  const answers: MigrationActivities = {
    acceptRequest: async () => ({ profile: { ...profile, ...changed }, profileDigest: '1'.repeat(64) }),
    reviewChange: async () => ({
      commit: 'c'.repeat(40),
      tag: 'v2',
      source: 'command',
      reviewers: ['eve'],
      checks: 'success',
    }),
    inspectAccess: async () => ({
      production: identity,
      staging: { ...identity, database: 'staging' },
      scratch: { ...identity, database: 'scratch' },
      migratorRole: 'migrator',
      rights: [],
      tls: 'off',
      capacity: 'waived',
      bucket: 'backups',
    }),
    readLease: async () => ({ workflowId: 'migrate-whisper-transcriber', runId: 'run', since: '' }),
    verifyMonitoring: async () => ({ measures: [] }),
    performActions: async ({ message }) => {
      world.calls.push(`tell:${message.kind}`);
      return { delivered: [] };
    },
    readSwitch: async () => ({ state: 'released', detail: {} }),
    engageSwitch: async () => ({ state: 'engaged', detail: {} }),
    releaseSwitch: async () => ({ state: 'released', detail: {} }),
    verifyTooling: async () => ({ programs: {}, alembic: '1', sqlalchemy: '2', python: '3', secretsResolved: 1 }),
    readMigrationGraph: async () => graph,
    captureBackup: async ({ step }): Promise<BackupEvidence> => ({
      uri: `s3://backups/${step}`,
      bucket: 'backups',
      key: step,
      bytes: 1,
      sha256: '0'.repeat(64),
      dumpBytes: 1,
      dumpSha256: '0'.repeat(64),
      capturedAt: new Date().toISOString(),
      lsn: '0/1',
      database: identity,
      versionRows: ['0001'],
      objectMapDigest: 'before',
      ledger: document,
      tables: 1,
      rows: 1,
      pgDumpVersion: '18',
      compression: 'zstd',
      encryption: 'age',
      sampledTables: 0,
      largeObjects: 0,
      milliseconds: 1,
      manifest: `s3://backups/${step}.json`,
    }),
    verifyBackup: async ({ backup }) => ({
      uri: backup.uri,
      bytes: 1,
      sha256: '',
      dumpSha256: '',
      entries: 1,
      tableData: 1,
      decodedBytes: 1,
      milliseconds: 1,
      predictedRestore: { milliseconds: 10, from: 'dump' },
    }),
    migrateStaging: async () => ({
      before: ['0001'],
      after: ['0002'],
      tests: '1 passed',
      log: document,
      upgradeMilliseconds: 100,
      mapBefore: document,
      mapAfter: document,
      schemaBefore: document,
      schemaAfter: document,
      nothingToDo: false,
    }),
    exerciseApplication: async () => ({ bootMilliseconds: 1, flows: [] }),
    diffSchema: async () => ({ diff: document, added: [], removed: [], changed: [] }),
    sealPlan: async ({ plan }: { plan: MigrationPlan }) => ({
      plan,
      digest: 'ab'.repeat(32),
      uri: 's3://evidence/plan',
    }),
    identifyRun: async () => ({ currentRunId: 'run' }),
    captureMeasures: async () => ({ takenAt: '', values: [] }),
    checkReplication: async () => ({ standbys: [] }),
    inspectProduction: async () => production,
    upgradeProduction: async () => {
      world.reality = { kind: 'fully-applied' };
      return {
        revisions: ['0002'],
        milliseconds: 1,
        how: 'upgraded',
        droppedInvalidIndexes: [],
        endedSessions: 0,
        tries: 1,
        blockers: [],
      };
    },
    runChecks: async () => ({ checks: [] }),
    compareMeasures: async () => ({ values: [] }),
    validateSchema: async () => ({ expected: [], changes: 1, versionRows: ['0002'], notCompared: [] }),
    evaluateProduction: async () => ({
      reality: world.reality,
      versionRows: [],
      objectMapDigest: '',
      differences: [],
      leftovers: [],
      droppedInvalidIndexes: [],
      endedSessions: 0,
    }),
    rollBackProduction: async () => {
      world.reality = { kind: 'unchanged' };
      return rolledBack;
    },
    compareRowsWithBackup: async () => compared([]),
    restoreFreshDatabase: async () => restored,
    restoreForRehearsal: async () => ({
      database: 'pristine',
      server: identity,
      restored: { ...restored, milliseconds: 10 },
      neutralized: [],
      unknown: [],
    }),
    rehearseMigration: async () => trial(),
    rehearseSwap: async () => ({ shutOut: 1, milliseconds: 1 }),
    dropRehearsal: async () => ({ dropped: ['pristine'] }),
    checkFreshness: async ({ commit, rehearsed: { databaseBytes } }) => ({ expired: [], commit, databaseBytes }),
    verifyApproval: async () => ({ valid: true, key: 'SHA256:scripted' }),
    countArrivals: async () => ({ objects: [], total: 0, archive: null, unknown: [], unseen: [] }),
    readFence: async () => ({ state: 'released', detail: {} }),
    engageFence: async () => ({
      state: { state: 'engaged', detail: {} },
      since: new Date().toISOString(),
      endedSessions: 1,
      tried: 'refused',
      counters: document,
    }),
    releaseFence: async () => ({ state: 'released', detail: {} }),
    proveFenceHeld: async () => ({ held: true, written: [], unknown: [], counters: document }),
    createRecoveryPoint: async () => ({ takenAt: '', restorePoint: null, snapshot: 'snapshot-1' }),
    estimateWayBack: async ({ fencedSince }) => wayBack('statistics', fencedSince),
    salvageRows: async ({ fencedSince }) => ({
      cost: wayBack('comparison', fencedSince),
      lost: [],
      archive: document,
      manifest: document,
    }),
    prepareDrill: notScripted,
    restoreOnScratch: notScripted,
    dropScratchDatabase: notScripted,
    recordDrill: notScripted,
    swapDatabases: async () => {
      world.reality = { kind: 'unchanged' };
      return swapped;
    },
    archiveReport: async ({ report }) => {
      world.reports.push(report);
      return { json: document, markdown: document, html: document };
    },
    runOwnStep: async () => ({ answer: 'ok' }),
  };
  const activities = { ...answers, ...overrides(world) };
  const recorded = Object.fromEntries(
    Object.entries(activities).map(([name, call]) => [
      name,
      async (input: never) => {
        world.calls.push(name);
        return (call as (input: never) => Promise<unknown>)(input);
      },
    ]),
  ) as unknown as MigrationActivities;
  return { world, activities: recorded };
}

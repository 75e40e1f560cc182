/** A run that was restored after a failed smoke test, with something in every part of its report. */
import type { BackupEvidence } from '../../src/contract/evidence.ts';
import type { RunReport } from '../../src/contract/report.ts';
import type { StepRecord } from '../../src/contract/status.ts';

/** Seconds after the run's start. */
export const at = (seconds: number): string =>
  new Date(Date.UTC(2026, 10, 22, 22, 0, 0) + seconds * 1000).toISOString();

const step = (id: string, from: number, to: number, more: Partial<StepRecord> = {}): StepRecord => ({
  id,
  summary: `summary of ${id}`,
  startedAt: at(from),
  endedAt: at(to),
  status: 'done',
  ...more,
});

const backup: BackupEvidence = {
  uri: 's3://backups/runbook/whisper-transcriber/run/backup.capture.dump.age',
  bucket: 'backups',
  key: 'runbook/whisper-transcriber/run/backup.capture.dump.age',
  bytes: 2_500_000,
  sha256: 'c'.repeat(64),
  dumpBytes: 2_400_000,
  dumpSha256: 'd'.repeat(64),
  capturedAt: at(3),
  lsn: '0/1A2B3C4',
  database: {
    systemIdentifier: '7000000000000000001',
    database: 'whisper',
    oid: 16_384,
    timeline: 1,
    serverVersion: '18.6',
    serverMajor: 18,
    encoding: 'UTF8',
    sizeBytes: 9_000_000,
  },
  versionRows: ['0002'],
  objectMapDigest: 'e'.repeat(64),
  ledger: { uri: 's3://backups/ledger.json', sha256: 'f'.repeat(64), bytes: 1000 },
  tables: 6,
  rows: 20_123,
  pgDumpVersion: '18.6',
  encryption: 'age X25519',
};

export const sample: RunReport = {
  format: 'migration-runbook/report/1',
  service: 'whisper-transcriber',
  releaseTag: 'v1.3.0',
  commit: 'a'.repeat(40),
  changeTicket: 'CHG-1042',
  requestedBy: 'dana@example.com',
  workflowId: 'migrate-whisper-transcriber',
  runId: '0190b5a4-0000-7000-8000-000000000001',
  startedAt: at(0),
  endedAt: at(900),
  outcome: 'restored',
  verdict: 'Restored (apply.smoke failed: playback is broken): production is the backup.',
  trouble: 'apply.smoke failed: playback is broken',
  plan: {
    digest: 'ab'.repeat(32),
    uri: 's3://backups/runbook/whisper-transcriber/run/plan-abababababab.json',
    plan: {
      format: 'migration-runbook/plan/1',
      runId: '0190b5a4-0000-7000-8000-000000000001',
      workflowId: 'migrate-whisper-transcriber',
      service: 'whisper-transcriber',
      releaseTag: 'v1.3.0',
      commit: 'a'.repeat(40),
      changeTicket: 'CHG-1042',
      requestedBy: 'dana@example.com',
      profileDigest: '1'.repeat(64),
      production: { systemIdentifier: '7000000000000000001', database: 'whisper' },
      startRevisions: ['0002'],
      targetRevision: '0003',
      revisions: [
        {
          revision: '0003',
          file: 'versions/0003_one_line_transcripts.py',
          sha256: '2'.repeat(64),
          transactional: 'yes',
          downgrade: 'raises',
        },
      ],
      objectMapDigest: 'e'.repeat(64),
      schemaChange: { added: ['column public.transcripts.line'], removed: [], changed: [] },
      backupPolicy: { bucket: 'backups', recipients: ['age1example'], maximumAge: 3_600_000 },
      window: { start: null, end: null, length: 3_600_000 },
      recovery: { rollback: 'ask', downgrade: null, restore: 'by decision', restoreLoses: 'later writes' },
      checks: ['health', 'playback'],
      approvals: { required: 1, approvers: [] },
      warnings: ['the downgrade of 0003 raises'],
      tools: { pg_dump: '18.6', alembic: '1.17.0' },
    },
  },
  backups: [backup],
  timeline: [
    step('preconditions.request', 0, 0.2, { evidence: { profileDigest: '1'.repeat(64) } }),
    step('backup.capture', 0.2, 4.4, { evidence: { uri: backup.uri, rows: 20_123 } }),
    step('gate.production/notify', 4.5, 5, { evidence: {} }),
    step('apply.upgrade', 305, 307),
    step('apply.smoke', 307, 308, { status: 'failed', error: 'playback is broken' }),
    step('recovery.restore', 400, 440),
    step('closeout.resume/deployments', 441, 442),
  ],
  decisions: [
    { at: at(305), by: 'erin@example.com', what: 'approve', gate: 'production', reason: 'looks right' },
    { at: at(400), by: 'erin@example.com', what: 'recover: restore', gate: 'recovery', reason: 'data is damaged' },
  ],
  obligations: [
    {
      name: 'deployments',
      kind: 'freeze',
      since: at(305),
      before: { state: 'released', detail: {} },
      status: 'released',
    },
  ],
  refusals: {
    count: 23,
    last: [{ at: at(200), message: 'approve', by: 'dana@example.com', why: 'requested this run' }],
  },
  openItems: ['the stakeholders could not be told'],
  intervened: true,
  senders: [
    {
      name: 'approve',
      via: 'signal',
      claimed: 'dana@example.com',
      identity: 'dana@desk',
      sentAt: at(199.9),
      handledAt: at(200),
    },
    {
      name: 'approve',
      via: 'update',
      claimed: 'erin@example.com',
      identity: 'erin@laptop',
      principal: 'jwt:erin',
      sentAt: at(305),
      handledAt: at(305),
    },
  ],
};

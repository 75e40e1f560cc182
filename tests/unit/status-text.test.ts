import { describe, expect, test } from 'vitest';
import { LiveLines } from '../../src/commands/live-lines.ts';
import { endLines, progressText, waitingLines } from '../../src/commands/run-texts.ts';
import { statusText } from '../../src/commands/status-text.ts';
import type { WayBackCost } from '../../src/contract/evidence/restore.ts';
import type { MessageSender } from '../../src/contract/report.ts';
import type { RunStatus, StepRecord, Waiting } from '../../src/contract/status.ts';
import type { ActivityView, ExecutionView } from '../../src/history/execution.ts';
import type { RunEvent } from '../../src/history/follow.ts';
import type { RunEnd } from '../../src/history/run-end.ts';
import type { RunView } from '../../src/history/run-view.ts';
import { detailsMarkdown } from '../../src/workflows/details.ts';
import { at } from './report-sample.ts';

const now = Date.parse(at(120));

const execution: ExecutionView = {
  workflowId: 'migrate-whisper-transcriber',
  runId: '0190b5a4-0000-7000-8000-000000000001',
  firstRunId: '0190b5a4-0000-7000-8000-000000000001',
  status: 'RUNNING',
  startedAt: at(0),
  taskQueue: 'database-migrations',
  activities: [],
};

const status: RunStatus = {
  service: 'whisper-transcriber',
  releaseTag: 'v2.1.0',
  changeTicket: 'CHG-1042',
  requestedBy: 'dana@example.com',
  stage: 'before-upgrade',
  obligations: [],
  openObligations: 0,
  decisions: [],
  refusals: { count: 0, last: [] },
  actions: [],
};

const view = (changes: Partial<RunView> = {}, facts: Partial<RunStatus> = {}): RunView => ({
  execution,
  status: { kind: 'answered', value: { ...status, ...facts } },
  taskQueue: { name: 'database-migrations', workers: ['1@host'] },
  senders: [],
  unknownSignals: [],
  ...changes,
});

const activity: ActivityView = { id: 'backup.capture', state: 'started', attempt: 1, maximumAttempts: 5 };

describe('the status of a run', () => {
  test('is short where there is little to say', () => {
    expect(statusText(view(), now)).toBe(
      [
        'run          migrate-whisper-transcriber, 0190b5a4-0000-7000-8000-000000000001',
        'started      2026-11-22 22:00:00 UTC, 2 min ago',
        'change       whisper-transcriber v2.1.0 for CHG-1042, requested by dana@example.com',
        'stage        before-upgrade',
      ].join('\n'),
    );
  });

  test('tells what a restore would take back, table by table', () => {
    const wayBack: WayBackCost = {
      basis: 'statistics',
      since: at(0),
      backupAge: 60_000,
      tables: [{ table: 'public.jobs', inserted: 7, updated: 2, deleted: 1 }],
      furtherTables: 3,
      total: { inserted: 9, updated: 2, deleted: 1 },
      unknown: ['public.speakers'],
      by: 'anybody',
      predictedMilliseconds: 1000,
    };
    const text = statusText(view({}, { stage: 'gate-recovery', wayBack }), now);
    // A bound holds only where every table could be judged.
    expect(text).toContain('takes back at least 9 inserted, 2 updated, 1 deleted rows');
    expect(text).not.toContain('at most');
    expect(text).toContain('public.jobs: +7 ~2 -1');
    expect(text).toContain('and 3 more table(s)');
    expect(text).toContain('not known for public.speakers');
    const known = statusText(view({}, { stage: 'gate-recovery', wayBack: { ...wayBack, unknown: [] } }), now);
    expect(known).toContain('takes back at most 9 inserted');
    const nothing = { inserted: 0, updated: 0, deleted: 0 };
    const open = statusText(
      view({}, { stage: 'gate-recovery', wayBack: { ...wayBack, tables: [], total: nothing } }),
      now,
    );
    expect(open).toContain('an unknown number of rows');
  });

  test('says first what keeps the run from going on', () => {
    const text = statusText(
      view({
        taskQueue: { name: 'database-migrations', workers: [] },
        workflowTaskFailure: { since: at(60), message: 'TypeError: x\n  at y' },
        execution: { ...execution, workflowTaskAttempt: 7, activities: [{ ...activity, state: 'paused' }] },
      }),
      now,
    );
    expect(text.split('\n').slice(0, 3)).toEqual([
      'PROBLEM      no worker polls the task queue database-migrations: start one with runbook worker',
      'PROBLEM      workflow task failing since 2026-11-22 22:01:00 UTC (1 min, attempt 7): TypeError: x at y',
      'PROBLEM      the step backup.capture is paused by somebody: temporal activity unpause',
    ]);
  });

  test('merges the step of the workflow with what its activity reports', () => {
    const text = statusText(
      view(
        {
          execution: {
            ...execution,
            activities: [
              {
                ...activity,
                attempt: 2,
                worker: '1@host',
                heartbeat: { at: at(119), details: { phase: 'dump', bytes: 12_400_000, blockers: [{ pid: 7 }] } },
                lastFailure: 'OutsideUnavailable: no answer',
                nextAttemptAt: at(130),
              },
            ],
          },
        },
        { step: { id: 'backup.capture', summary: 'Backup', since: at(30) } },
      ),
      now,
    );
    expect(text.split('\n').slice(4)).toEqual([
      'step         backup.capture: Backup (for 1 min 30 s)',
      '             attempt 2 of 5, started on 1@host',
      '             heartbeat 1.0 s ago: phase dump, bytes 12.4 MB, blockers [{"pid":7}]',
      '             last failure: OutsideUnavailable: no answer',
      '             next attempt at 2026-11-22 22:02:10 UTC',
    ]);
  });

  test('names who stands in the way of the upgrade, what runs and how far an index is', () => {
    const details = {
      phase: 'alembic upgrade',
      target: '0004',
      revision: '0003',
      line: '',
      try: 2,
      versionRows: ['0002'],
      statement: 'ALTER TABLE users\nADD COLUMN age INTEGER',
      statementSince: at(118),
      index: 'public.notes 45 %, building index',
      blockers: [
        {
          pid: 4711,
          role: 'analytics',
          application: 'reporting',
          state: 'idle in transaction',
          transactionAge: 240_000,
          queryAge: 200_000,
          waitedFor: 'AccessExclusiveLock on public.users',
        },
        {
          pid: 0,
          role: 'shop',
          application: 'prepared transaction order 7',
          state: 'prepared',
          transactionAge: 1000,
          queryAge: 1000,
          waitedFor: 'AccessExclusiveLock on public.users',
        },
      ],
    };
    const applying = { ...activity, id: 'apply.upgrade', heartbeat: { at: at(119), details } };
    const text = statusText(
      view(
        { execution: { ...execution, activities: [applying] } },
        { step: { id: 'apply.upgrade', summary: 'alembic upgrade 0004', since: at(110) } },
      ),
      now,
    );
    expect(text.split('\n').slice(4)).toEqual([
      'step         apply.upgrade: alembic upgrade 0004 (for 10.0 s)',
      '             attempt 1 of 5, started',
      '             heartbeat 1.0 s ago: phase alembic upgrade, target 0004, revision 0003, try 2',
      '             BLOCKED by pid 4711 (reporting), role "analytics", idle in transaction: AccessExclusiveLock on public.users waits; its transaction is open for 4 min, its last query ended 3 min 20 s ago',
      '             BLOCKED by prepared transaction order 7, role "shop", prepared: AccessExclusiveLock on public.users waits; its transaction is open for 1.0 s, its last query ended 1.0 s ago',
      '             statement for 2.0 s: ALTER TABLE users ADD COLUMN age INTEGER',
      '             index of public.notes 45 %, building index',
      '             committed: 0002',
    ]);
  });

  test('shows the window with the point of no return', () => {
    const text = statusText(view({}, { stage: 'upgrade', windowEnd: at(3720), pointOfNoReturn: at(720) }), now);
    expect(text).toContain('window       ends 2026-11-22 23:02:00 UTC (in 1 h)');
    expect(text).toContain(
      '\n             point of no return 2026-11-22 22:12:00 UTC (in 10 min): an upgrade that still runs is stopped then',
    );
  });

  test('shows the server’s record of the sender beside the name that is claimed', () => {
    const sender: MessageSender = {
      name: 'approve',
      via: 'update',
      claimed: 'erin@example.com',
      identity: 'erin@laptop',
      principal: 'jwt:erin',
      sentAt: at(100),
      handledAt: at(100),
    };
    const text = statusText(
      view(
        { senders: [sender] },
        {
          decisions: [{ at: at(100), by: 'erin@example.com', what: 'approve', gate: 'production', reason: 'fine' }],
          refusals: { count: 1, last: [{ at: at(90), message: 'approve', by: 'erin@example.com', why: 'stale' }] },
        },
      ),
      now,
    );
    expect(text).toContain('22:01:40 approve by erin@example.com [sent by jwt:erin, erin@laptop (update)]: fine');
    // Another moment: nothing in the history fits.
    expect(text).toContain('22:01:30 approve by erin@example.com: stale');
  });

  test('shows obligations, loudest where one could not be put back', () => {
    const before = { state: 'released', detail: {} } as const;
    const text = statusText(
      view(
        {},
        {
          obligations: [
            { name: 'deployments', kind: 'freeze', since: at(0), before, status: 'engaged' },
            { name: 'queues', kind: 'jobs', since: at(0), before, status: 'open', note: 'no\nanswer' },
          ],
        },
      ),
      now,
    );
    expect(text).toContain('obligations  engaged: freeze deployments\n             OPEN: jobs queues (no answer)');
  });

  test('of a run that ended is its outcome, with what is open and where the report lies', () => {
    const text = statusText(
      view({
        execution: { ...execution, status: 'FAILED', closedAt: at(90) },
        taskQueue: { name: 'q', workers: [] },
        status: { kind: 'unanswered', why: 'no worker' },
        end: {
          kind: 'ended',
          outcome: 'handed-over',
          verdict: 'Handed over.',
          summary: {
            outcome: 'handed-over',
            verdict: 'Handed over.',
            service: '',
            releaseTag: '',
            changeTicket: '',
            planDigest: null,
            backup: null,
            keptAside: null,
            openItems: ['not put back: deployments'],
            findings: ['playback is broken'],
            report: 's3://bucket/report.json',
          },
        },
      }),
      now,
    );
    expect(text).toBe(
      [
        'run          migrate-whisper-transcriber, 0190b5a4-0000-7000-8000-000000000001',
        'started      2026-11-22 22:00:00 UTC, took 1 min 30 s',
        'outcome      handed-over: Handed over.',
        '             finding: playback is broken',
        '             still open: not put back: deployments',
        '             report: s3://bucket/report.json',
      ].join('\n'),
    );
  });

  test('never breaks a line by what somebody wrote', () => {
    const evil = 'one\r\ntwo\n\nthree';
    const text = statusText(
      view(
        { unknownSignals: [{ name: evil, via: 'signal', identity: evil, sentAt: at(1) }] },
        {
          trouble: evil,
          step: { id: 'x', summary: evil, since: at(1) },
          waiting: { for: 'recovery', gate: 'recovery', actions: [], why: evil },
          decisions: [{ at: at(1), by: evil, what: 'abort', reason: evil }],
          refusals: { count: 1, last: [{ at: at(1), message: 'abort', by: evil, why: evil }] },
        },
      ),
      now,
    );
    expect(text).not.toContain('\ntwo');
    expect(text.split('\n').every((line) => /^[A-Za-z ]{13}\S/.test(line))).toBe(true);
  });
});

describe('how a run ended', () => {
  const end = (verdict: string, findings: readonly string[]): RunEnd => ({
    kind: 'ended',
    outcome: 'aborted',
    verdict,
    summary: {
      outcome: 'aborted',
      verdict,
      service: 'svc',
      releaseTag: '',
      changeTicket: '',
      planDigest: null,
      backup: null,
      keptAside: null,
      openItems: [],
      findings,
      report: null,
    },
  });

  test('says several findings once, a line each', () => {
    const verdict =
      'Aborted (preconditions.access failed: 2 findings: (1) no CREATEDB (2) no TLS): production is unchanged.';
    expect(endLines(end(verdict, ['no CREATEDB', 'no TLS']))).toEqual([
      'aborted: Aborted (preconditions.access failed: 2 findings): production is unchanged.',
      'finding: no CREATEDB',
      'finding: no TLS',
    ]);
  });

  test('does not say again what the verdict says', () => {
    const verdict = 'Aborted (rejected by erin: not tonight): production is unchanged.';
    expect(endLines(end(verdict, ['rejected by erin: not tonight']))).toEqual([`aborted: ${verdict}`]);
  });

  test('tells trouble beside neither the verdict nor the question that holds it', () => {
    const trouble = 'apply.smoke failed: playback is broken';
    const waiting: Waiting = { for: 'recovery', gate: 'recovery', actions: ['retry'], why: `${trouble}; decide` };
    expect(statusText(view({}, { trouble }), now)).toContain(`trouble      ${trouble}`);
    expect(statusText(view({}, { trouble, waiting }), now)).not.toContain('trouble      ');
    const ended = view({ end: end(`Aborted (${trouble}): production is unchanged.`, []) }, { trouble });
    expect(statusText(ended, now)).not.toContain('trouble      ');
  });
});

describe('what a run waits for', () => {
  const service = 'svc';
  test('an approval: how many, by whom already, of which plan, until when, and how', () => {
    expect(
      waitingLines(
        {
          for: 'approval',
          gate: 'production',
          planDigest: 'ab'.repeat(32),
          missing: 1,
          approvedBy: ['erin'],
          until: at(720),
        },
        { service },
        now,
      ),
    ).toEqual([
      '1 approval(s) (given by erin) of plan abababababab until 2026-11-22 22:12:00 UTC (in 10 min)',
      `runbook approve svc --by you@example.com --plan ${'ab'.repeat(32)}`,
      'runbook reject svc --by you@example.com --reason why',
    ]);
  });

  test('a signed approval: with the option that signs', () => {
    const waiting: Waiting = {
      for: 'approval',
      gate: 'production',
      planDigest: 'ab'.repeat(32),
      signatures: 'required',
      missing: 2,
      approvedBy: [],
      until: at(720),
    };
    const [what, approve = ''] = waitingLines(waiting, { service }, now);
    expect(what).toMatch(/^2 signed approval\(s\) of plan/);
    expect(approve).toBe(`runbook approve svc --by you@example.com --plan ${'ab'.repeat(32)} --sign ~/.ssh/id_ed25519`);
    // The page of the run in the UI says the same, and offers nothing that would be refused.
    const details = detailsMarkdown({ ...status, service, waiting });
    expect(details).toContain(`${approve}\n`);
    expect(details).not.toContain('tctl');
  });

  test('QA, the window, a decision', () => {
    expect(waitingLines({ for: 'qa', gate: 'qa', until: at(60) }, { service }, now)[0]).toContain('(1 min ago)');
    expect(waitingLines({ for: 'window', until: at(180) }, { service }, now)).toEqual([
      'the change window to open at 2026-11-22 22:03:00 UTC (in 1 min)',
    ]);
    expect(
      waitingLines(
        { for: 'recovery', gate: 'recovery', actions: ['retry', 'accept'], why: 'broken' },
        { service },
        now,
      ),
    ).toEqual([
      'a person to decide: broken',
      'runbook recover svc --by you@example.com --action retry --reason why',
      'runbook recover svc --by you@example.com --action accept --reason why',
    ]);
  });
});

describe('progress', () => {
  test.each([
    [{ bytes: 1_500_000, totalBytes: 3e9 }, 'bytes 1.5 MB, totalBytes 3.0 GB'],
    [{ elapsedMilliseconds: 1500, revision: '0003' }, 'elapsedMilliseconds 1.5 s, revision 0003'],
    [{ line: 'a\nb' }, 'line a b'],
    [{}, ''],
    [undefined, ''],
    [null, ''],
    ['half way', 'half way'],
  ])('%j is %j', (details, text) => expect(progressText(details)).toBe(text));

  test('is cut where a step says too much', () => {
    expect(progressText({ text: 'x'.repeat(10_000) }).length).toBe(300);
  });
});

describe('a followed run', () => {
  const step = (changes: Partial<StepRecord> = {}): StepRecord => ({
    id: 'backup.capture',
    summary: 'Backup',
    startedAt: at(0),
    status: 'running',
    ...changes,
  });

  const shown = (isTerminal: boolean, events: readonly (readonly [seconds: number, RunEvent])[]) => {
    const printed: string[] = [];
    const replaced: string[] = [];
    const lines = new LiveLines({
      isTerminal,
      print: (text) => void printed.push(text),
      note: (text) => void printed.push(text),
      replace: (line) => void replaced.push(line),
    });
    for (const [seconds, event] of events) lines.show(event, Date.parse(at(seconds)));
    return { printed, replaced };
  };

  const running = (seconds: number): readonly [number, RunEvent] => [
    seconds,
    {
      kind: 'progress',
      step: step(),
      activity: { ...activity, attempt: 2, heartbeat: { at: at(seconds), details: { bytes: seconds * 1000 } } },
    },
  ];

  test('on a terminal has one line that is refreshed while a step runs', () => {
    const { printed, replaced } = shown(true, [[0, { kind: 'step-begun', step: step() }], running(1), running(2)]);
    expect(printed).toEqual([]);
    expect(replaced).toEqual([
      '22:00:01 … backup.capture  Backup  1.0 s, attempt 2, bytes 1.0 kB',
      '22:00:02 … backup.capture  Backup  2.0 s, attempt 2, bytes 2.0 kB',
    ]);
  });

  test('elsewhere tells of a long step every ten seconds, so that nobody waits in silence', () => {
    const seconds = Array.from({ length: 25 }, (_, index) => running(index + 1));
    const { printed } = shown(false, [[0, { kind: 'step-begun', step: step() }], ...seconds]);
    expect(printed.map((line) => line.slice(0, 8))).toEqual(['22:00:10', '22:00:20']);
  });

  test('names who stands in the way at once, and once', () => {
    const blocker = {
      pid: 7,
      role: 'analytics',
      application: '',
      state: 'active',
      transactionAge: 4000,
      queryAge: 3000,
      waitedFor: 'ShareLock on public.jobs',
    };
    const blocked = (seconds: number): readonly [number, RunEvent] => [
      seconds,
      {
        kind: 'progress',
        step: step({ id: 'apply.upgrade', summary: 'upgrade' }),
        activity: { ...activity, heartbeat: { at: at(seconds), details: { try: 1, blockers: [blocker] } } },
      },
    ];
    const { printed, replaced } = shown(false, [[0, { kind: 'step-begun', step: step() }], blocked(1), blocked(2)]);
    expect(printed).toEqual([
      '22:00:01 ! apply.upgrade  BLOCKED by pid 7 (no application name), role "analytics", active: ShareLock on public.jobs waits; its transaction is open for 4.0 s, its query runs for 3.0 s',
    ]);
    expect(replaced.at(-1)).toBe(
      '22:00:02 … apply.upgrade  upgrade  2.0 s, BLOCKED by pid 7 (no application name): ShareLock on public.jobs waits, try 1',
    );
  });

  test('names a long list of blockers once, not with the trouble, the question and the verdict again', () => {
    const blockers = Array.from({ length: 9 }, (_, n) => `pid 471${n} (reporting), role "analytics", idle`).join('; ');
    const error = `no lock within 5 tries; in the way: ${blockers}`;
    const trouble = `apply.upgrade failed: ${error}`;
    const waiting: Waiting = {
      for: 'recovery',
      gate: 'recovery',
      actions: ['retry'],
      why: `${trouble}; rollback is offered`,
    };
    const { printed } = shown(false, [
      [5, { kind: 'step-ended', step: step({ status: 'failed', endedAt: at(5), error }) }],
      [6, { kind: 'trouble', text: trouble }],
      [7, { kind: 'waiting', waiting, status: { ...status, waiting } }],
      [
        9,
        {
          kind: 'ended',
          end: {
            kind: 'ended',
            outcome: 'handed-over',
            verdict: `Handed over (${trouble}): production is as reported.`,
          },
          execution,
        },
      ],
    ]);
    expect(printed.filter((line) => line.includes('pid 4718'))).toHaveLength(1);
    expect(printed[0]).toContain(error);
    expect(printed[1]).toMatch(/^22:00:06 ! apply\.upgrade failed: no lock within 5 tries; .* … \(above\)$/);
    expect(printed[2]).toMatch(
      /waits for a person to decide: apply\.upgrade failed: .* … \(above\); rollback is offered$/,
    );
    expect(printed[3]).toMatch(/^ +runbook recover .* --action retry/);
    expect(printed[4]).toMatch(
      /handed-over: Handed over \(apply\.upgrade failed: .* … \(above\)\): production is as reported\.$/,
    );
  });

  test('has a line for each step that ended, with its time and what went wrong', () => {
    const { printed } = shown(false, [
      [4, { kind: 'step-ended', step: step({ status: 'done', endedAt: at(4.2) }) }],
      [5, { kind: 'step-ended', step: step({ status: 'failed', endedAt: at(5), error: 'no\nanswer' }) }],
    ]);
    expect(printed).toEqual([
      '22:00:04 ✓ backup.capture  Backup  4.2 s',
      '22:00:05 ✗ backup.capture  Backup  failed, 5.0 s: no answer',
    ]);
  });
});

import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import { Worker } from '@temporalio/worker';
import { setTimeout as delay } from 'node:timers/promises';
import { ensureBundle } from '../../scripts/build-bundle.ts';
import { beforeAll, describe, expect, test } from 'vitest';
import { canonicalDigest } from '../../src/archive/canonical.ts';
import { openObjectStore } from '../../src/archive/object-store.ts';
import { setUpNamespace } from '../../src/commands/setup.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { MigrationActivities } from '../../src/contract/activities.ts';
import type { SealedPlan } from '../../src/contract/plan.ts';
import type { RunReport } from '../../src/contract/report.ts';
import type { StepRecord } from '../../src/contract/status.ts';
import { SEARCH_ATTRIBUTE_NAMES } from '../../src/contract/search-attributes.ts';
import { verifySignature } from '../../src/integrations/ssh-signature.ts';
import { createRedactor } from '../../src/process/redactor.ts';
import { createSshKey, signText, type SshKey } from '../ssh-keys.ts';
import { useStack } from '../stack.ts';
import { temporaryDirectory } from '../temporary-directory.ts';
import { profile, type World } from '../workflow/scripted-activities.ts';
import {
  type CliWorld,
  createNamespace,
  createWorld,
  DIGEST,
  REQUEST,
  type ServiceInTest,
  withService,
} from './cli-world.ts';

const stack = useStack();
let cli: CliWorld;

beforeAll(async () => {
  cli = await createWorld();
  await setUpNamespace(cli.client);
});

const approve = (service: string): readonly string[] => [
  'approve',
  service,
  '--by',
  'erin@example.com',
  '--plan',
  DIGEST,
];

/** The checks fail once the upgrade is through: the run comes to the gate recovery. */
const smokeFails = (world: World): Partial<MigrationActivities> => ({
  runChecks: async () => {
    if (world.reality.kind === 'fully-applied')
      throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
    return { checks: [] };
  },
});

describe('runbook setup', () => {
  test('registers the search attributes, and says the second time that they are there', async () => {
    const namespace = await createNamespace(stack.temporal.address);
    const first = await cli.runbook('setup', '--namespace', namespace);
    expect(first).toEqual({
      code: 0,
      stdout: `registered in ${namespace}: ${SEARCH_ATTRIBUTE_NAMES.join(', ')}\n`,
      stderr: '',
    });
    const second = await cli.runbook('setup', '--namespace', namespace);
    expect(second).toEqual({
      code: 0,
      stdout: `already in ${namespace}: ${SEARCH_ATTRIBUTE_NAMES.join(', ')}\n`,
      stderr: '',
    });
  });

  test('refuses a namespace in which one has another type', async () => {
    const namespace = await createNamespace(stack.temporal.address);
    await cli.client.connection.operatorService.addSearchAttributes({
      namespace,
      searchAttributes: { MigrationStage: 3 },
    });
    const { code, stderr } = await cli.runbook('setup', '--namespace', namespace);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^runbook: MigrationStage exist in the namespace .* another type than Keyword.*\n$/);
  });

  test('names a namespace that does not exist', async () => {
    const { code, stderr } = await cli.runbook('setup', '--namespace', 'nowhere-at-all');
    expect(code).toBe(1);
    expect(stderr).toContain('the namespace nowhere-at-all does not exist');
  });
});

describe('a run from start to success', () => {
  test('is started, refused a second time, approved by the right person, followed, reported', async () => {
    await withService(cli, async ({ service, start, atGate }) => {
      const waiting = cli.begin(...start, '--wait');
      await waiting.says('waits for');
      await atGate('approval');

      const again = await cli.runbook(...start);
      expect(again.code).toBe(1);
      expect(again.stderr).toMatch(
        new RegExp(
          `^runbook: a run of ${service} is there already: migrate-${service}, run [0-9a-f-]{36}, since .*\\n$`,
        ),
      );

      const status = await cli.runbook('status', service);
      expect(status.code).toBe(0);
      expect(status.stdout).toContain(`${service} v1.1.0 for CHG-1, requested by dana@example.com`);
      expect(status.stdout).toContain('waits for    1 approval(s) of plan abababababab until ');
      expect(status.stdout).toContain(`runbook approve ${service} --by you@example.com --plan ${DIGEST}`);

      const byRequester = await cli.runbook('approve', service, '--by', 'Dana@example.com', '--plan', DIGEST);
      expect(byRequester).toEqual({
        code: 1,
        stdout: '',
        stderr: 'runbook: refused: Dana@example.com requested this run and cannot approve it\n',
      });
      const stale = await cli.runbook('approve', service, '--by', 'erin@example.com', '--plan', 'f'.repeat(64));
      expect(stale.code).toBe(1);
      expect(stale.stderr).toContain('the plan to be approved is abababababab, not ffffffffffff');

      // The command is the one that status prints, with one's own name.
      const [, printed = ''] = /runbook (approve .*)/.exec(status.stdout) ?? [];
      const words = printed.replace('you@example.com', 'erin@example.com').split(' ');
      const approved = await cli.runbook(...words, '--comment', 'looks right');
      expect(approved).toEqual({
        code: 0,
        stdout: 'approval of the gate production by erin@example.com counted\n',
        stderr: '',
      });

      const { code, stdout } = await waiting.ended;
      expect(code).toBe(0);
      expect(stdout).toMatch(/✓ backup\.capture .* \d+ ms\n/);
      expect(stdout).toContain('> approve by erin@example.com: looks right');
      expect(stdout).toContain('> refused: approve by Dana@example.com');
      expect(stdout).toMatch(/✓ apply\.upgrade {2}/);
      expect(stdout).toContain('succeeded: Applied: production is at 0002');

      await reportsAgree(service);
    });
  });

  const reportsAgree = async (service: string): Promise<void> => {
    const summary = await cli.runbook('report', service);
    expect(summary.code).toBe(0);
    expect(summary.stdout).toContain('succeeded: Applied');
    expect(summary.stdout).toMatch(new RegExp(`report: s3://${stack.s3.bucket}/runbook/.*/report\\.json\\n`));

    for (const format of ['json', 'markdown', 'md', 'html']) {
      const rendered = await cli.runbook('report', service, '--format', format);
      const archived = await cli.runbook('report', service, '--format', format, '--profiles', cli.profiles);
      expect(archived).toMatchObject({ code: 0, stderr: '' });
      expect(archived.stdout).toContain(service);
      // Of the history, or as it was archived: the same report.
      expect(rendered).toEqual(archived);
    }
    const { stdout } = await cli.runbook('report', service, '--format', 'json');
    const { senders, decisions, timeline } = JSON.parse(stdout) as RunReport;
    expect(timeline.length).toBeGreaterThan(20);
    expect(decisions).toMatchObject([{ by: 'erin@example.com', what: 'approve' }]);
    // One for each message, refused ones too, with the moment at which the workflow handled it.
    expect(senders?.map(({ name, via, claimed }) => [name, via, claimed])).toEqual([
      ['approve', 'update', 'Dana@example.com'],
      ['approve', 'update', 'erin@example.com'],
      ['approve', 'update', 'erin@example.com'],
    ]);
    expect(senders?.at(-1)?.identity).toMatch(/^\S+@\S+$/);
    expect(senders?.at(-1)?.handledAt).toBe(decisions[0]?.at);

    const ended = await cli.runbook('status', service);
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/outcome {6}succeeded: Applied/);
    const late = await cli.runbook(...approve(service));
    expect(late.code).toBe(1);
    expect(late.stderr).toContain(`the last run of ${service} has ended`);
  };
});

describe('the exit code of start --wait', () => {
  const exitOf = async (
    act: (run: ServiceInTest) => Promise<unknown>,
    overrides: (world: World) => Partial<MigrationActivities> = () => ({}),
    changes = {},
  ) =>
    withService(
      cli,
      async (run) => {
        const waiting = cli.runbook(...run.start, '--wait');
        await run.atGate('approval');
        await act(run);
        return waiting;
      },
      overrides,
      changes,
    );

  test('is 3 when the gate is rejected', async () => {
    const { code, stdout } = await exitOf(async ({ service }) => {
      const rejected = await cli.runbook('reject', service, '--by', 'erin@example.com', '--reason', 'not tonight');
      expect(rejected).toEqual({ code: 0, stdout: 'gate production rejected by erin@example.com\n', stderr: '' });
    });
    expect(code).toBe(3);
    expect(stdout).toContain('aborted: Aborted (rejected by erin@example.com: not tonight): production is unchanged.');
  });

  test('is 3 when the run is aborted before the upgrade', async () => {
    const { code } = await exitOf(({ service }) =>
      cli.runbook('abort', service, '--by', 'erin@example.com', '--reason', 'disk alarm'),
    );
    expect(code).toBe(3);
  });

  test('is 3 when the workflow is cancelled, an end that carries no details', async () => {
    const { code, stdout } = await exitOf(({ service }) =>
      cli.client.workflow.getHandle(`migrate-${service}`).cancel(),
    );
    expect(code).toBe(3);
    expect(stdout).toContain('aborted: Cancelled: production is unchanged.');
  });

  test('is 4 when the migration was rolled back', async () => {
    const { code } = await exitOf(({ service }) => cli.runbook(...approve(service)), smokeFails, {
      fence: { kind: 'read-only' },
      recovery: { ...profile.recovery, rollback: 'automatic' },
    });
    expect(code).toBe(4);
  });

  test('is 5 when a person had the backup restored', async () => {
    const { code, stdout } = await exitOf(
      async ({ service, atGate }) => {
        await cli.runbook(...approve(service));
        await atGate('recovery');
        const refused = await cli.runbook(
          'recover',
          service,
          '--by',
          'erin',
          '--action',
          'rollback',
          '--reason',
          'try',
        );
        expect(refused.code).toBe(1);
        expect(refused.stderr).toContain('"rollback" is not possible now; possible: retry, continue, restore, accept');
        const status = await cli.runbook('status', service);
        expect(status.stdout).toContain(
          `runbook recover ${service} --by you@example.com --action restore --reason why`,
        );
        const restored = await cli.runbook(
          'recover',
          service,
          '--by',
          'erin',
          '--action',
          'restore',
          '--reason',
          'damaged',
        );
        expect(restored).toEqual({ code: 0, stdout: 'the run goes on with: restore\n', stderr: '' });
      },
      smokeFails,
      { recovery: { ...profile.recovery, rollback: 'never' } },
    );
    expect(code).toBe(5);
    expect(stdout).toContain('! apply.smoke failed: playback is broken');
  });

  test('is 6 when a person took over', async () => {
    const { code } = await exitOf(async ({ service, atGate }) => {
      await cli.runbook(...approve(service));
      await atGate('recovery');
      await cli.runbook('recover', service, '--by', 'erin', '--action', 'accept', '--reason', 'by hand');
    }, smokeFails);
    expect(code).toBe(6);
  });

  test('is 7 when somebody terminated the workflow', async () => {
    const { code, stdout } = await exitOf(({ service }) =>
      cli.client.workflow.getHandle(`migrate-${service}`).terminate('by mistake'),
    );
    expect(code).toBe(7);
    expect(stdout).toContain('ended without an outcome, terminated: by mistake');
  });

  test('is the outcome also when the workflow was reset meanwhile', async () => {
    await withService(cli, async ({ service, start, atGate }) => {
      const waiting = cli.runbook(...start, '--wait');
      await atGate('approval');
      const handle = cli.client.workflow.getHandle(`migrate-${service}`);
      const { runId } = await handle.describe();
      await cli.client.workflowService.resetWorkflowExecution({
        namespace: cli.namespace,
        workflowExecution: { workflowId: handle.workflowId, runId },
        reason: 'test',
        requestId: randomUUID(),
        workflowTaskFinishEventId: 4 as never,
      });
      expect((await handle.describe()).runId).not.toBe(runId);
      await atGate('approval');
      await cli.runbook('reject', service, '--by', 'erin', '--reason', 'enough');
      const { code, stdout } = await waiting;
      expect(code).toBe(3);
      expect(stdout).toContain('aborted: Aborted (rejected by erin: enough)');
    });
  });

  test('is 130 after Ctrl-C, and the run goes on', async () => {
    await withService(cli, async ({ service, start, atGate }) => {
      const waiting = cli.begin(...start, '--wait');
      await waiting.says('waits for');
      waiting.kill('SIGINT');
      const { code, stderr } = await waiting.ended;
      expect(code).toBe(130);
      expect(stderr).toContain(`no longer watched; the run migrate-${service} goes on`);
      await atGate('approval');
      const watching = cli.begin('watch', service);
      await watching.says('waits for');
      await cli.runbook('reject', service, '--by', 'erin', '--reason', 'enough');
      expect((await watching.ended).code).toBe(3);
    });
  });
});

describe('runbook status', () => {
  test('shows what the running step reports, its attempt and its last failure', async () => {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    await withService(
      cli,
      async ({ service, start, status }) => {
        await cli.runbook(...start);
        const handle = cli.client.workflow.getHandle(`migrate-${service}`);
        for (;;) {
          const [activity] = (await handle.describe()).raw.pendingActivities ?? [];
          if (activity?.attempt === 2 && activity.heartbeatDetails) break;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        expect((await status()).step?.id).toBe('tooling.verify');
        const { stdout } = await cli.runbook('status', service);
        expect(stdout).toContain('step         tooling.verify: ');
        expect(stdout).toMatch(/attempt 2 of \d+, started on \S+@/);
        expect(stdout).toMatch(/heartbeat .* ago: phase dump, bytes 1\.2 MB, revision 0003/);
        expect(stdout).toContain('last failure: OutsideUnavailable: the bucket did not answer');

        const { stdout: json } = await cli.runbook('status', service, '--json');
        expect(JSON.parse(json)).toMatchObject({
          execution: {
            activities: [{ id: 'tooling.verify', attempt: 2, heartbeat: { details: { bytes: 1_234_567 } } }],
          },
          status: { kind: 'answered', value: { stage: 'before-upgrade', step: { id: 'tooling.verify' } } },
        });
        release();
        await cli.runbook('abort', service, '--by', 'erin', '--reason', 'enough');
        await handle.result().catch(() => undefined);
      },
      () => ({
        verifyTooling: async () => {
          const context = Context.current();
          if (context.info.attempt === 1)
            throw ApplicationFailure.create({ type: STEP_ERRORS.unavailable, message: 'the bucket did not answer' });
          const beat = setInterval(() => context.heartbeat({ phase: 'dump', bytes: 1_234_567, revision: '0003' }), 100);
          await Promise.race([released, context.cancelled]).finally(() => clearInterval(beat));
          throw ApplicationFailure.nonRetryable('enough', STEP_ERRORS.checkFailed);
        },
      }),
    );
  });

  test('names signals that nobody handles, and who sent what by the server’s record', async () => {
    await withService(cli, async ({ service, start, atGate }) => {
      await cli.runbook(...start);
      await atGate('approval');
      const handle = cli.client.workflow.getHandle(`migrate-${service}`);
      await handle.signal('aprove', { by: 'erin@example.com' });
      await handle.signal('aprove', { by: 'erin@example.com' });
      const sent = await cli.runbook('approve', service, '--by', 'dana@example.com', '--plan', DIGEST, '--signal');
      expect(sent).toMatchObject({ code: 0, stdout: expect.stringContaining('signal sent') });
      await handle.signal('approve', 'not an object');
      const { stdout } = await cli.runbook('status', service);
      expect(stdout).toContain('unknown      2 signal(s) that nobody handles');
      expect(stdout).toMatch(/"aprove", 2 time\(s\), last .* by \S+@\S+ \(signal\)/);
      expect(stdout).toContain('refused      2 message(s):');
      expect(stdout).toMatch(
        /approve by dana@example\.com \[sent by \S+@\S+ \(signal\)\]: dana@example\.com requested this run/,
      );
      expect(stdout).toMatch(/approve \[sent by \S+ \(signal\)\]: approve: one JSON object/);
      await cli.runbook('reject', service, '--by', 'erin', '--reason', 'enough');
      await handle.result().catch(() => undefined);
    });
  });

  test('says that workflow code does not get through, and why', async () => {
    await withService(
      cli,
      async ({ service, start }) => {
        await cli.runbook(...start);
        const handle = cli.client.workflow.getHandle(`migrate-${service}`);
        for (;;) {
          const { raw } = await handle.describe();
          if ((raw.pendingWorkflowTask?.attempt ?? 0) > 1) break;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        const { code, stdout } = await cli.runbook('status', service);
        expect(code).toBe(0);
        expect(stdout).toMatch(
          /^PROBLEM {6}workflow task failing since .*attempt \d+\): Cannot read properties of null/m,
        );
        expect(stdout).toMatch(/^stage {8}before-upgrade$/m);
        await handle.terminate();
      },
      // A profile that breaks the workflow's own code.
      () => ({ acceptRequest: async () => ({ profile: { ...profile, switches: null as never }, profileDigest: '' }) }),
    );
  });

  test('of a service that never ran says so in one line', async () => {
    for (const command of [['status'], ['watch'], ['report'], ['abort', '--by', 'x', '--reason', 'x']]) {
      const [name = '', ...options] = command;
      const { code, stdout, stderr } = await cli.runbook(name, 'nobody', ...options);
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toBe('runbook: there is no run of nobody: nothing is known of a workflow migrate-nobody\n');
    }
  });
});

describe('without a worker', () => {
  test('a run is started, shown and signaled, and an approval is not waited for without end', async () => {
    const service = 'lonely';
    const start = await cli.runbook('start', service, '--task-queue', 'nobody-polls', ...REQUEST);
    expect(start.code).toBe(0);
    expect(start.stderr).toContain('no worker polls the task queue nobody-polls');

    const status = await cli.runbook('status', service);
    expect(status.code).toBe(0);
    expect(status.stdout).toMatch(/^PROBLEM {6}no worker polls the task queue nobody-polls/);
    expect(status.stdout).toContain('the workflow could not be asked');
    expect(status.stdout).toContain('migrate-lonely');

    const approved = await cli.runbook(...approve(service), '--time-limit', '1.5');
    expect(approved.code).toBe(1);
    expect(approved.stderr).toMatch(
      /^runbook: no answer to "approve" within 2 s, no worker polls the task queue nobody-polls.*may still be acted on.*\n$/,
    );
    expect((await cli.runbook('abort', service, '--by', 'x', '--reason', 'y', '--signal')).code).toBe(0);

    const report = await cli.runbook('report', service);
    expect(report.code).toBe(1);
    expect(report.stderr).toContain('has not ended');

    await cli.client.workflow.getHandle('migrate-lonely').terminate('the test is over');
    const ended = await cli.runbook('status', service);
    expect(ended.stdout).toContain('ended without an outcome, terminated: the test is over');
    expect(ended.stdout).toContain('look at the database and at what the run had switched, by hand');
    const nothing = await cli.runbook('report', service, '--format', 'html');
    expect(nothing).toMatchObject({ code: 1, stdout: '' });
  });

  test('an address that is none is wrong usage', async () => {
    const { code, stderr } = await cli.runbook('status', 'x', '--address', 'http://x:y');
    expect(code).toBe(2);
    expect(stderr).toMatch(/^runbook: .*address.*\n$/i);
  });

  test('an unreachable server is named', async () => {
    const { code, stderr } = await cli.runbook('status', 'x', '--address', '127.0.0.1:9');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^runbook: the Temporal server at 127\.0\.0\.1:9 cannot be reached .*\n$/);
  });
});

describe('an archived report', () => {
  /** Until the run has ended with it. */
  async function reject({ service, start, atGate }: ServiceInTest, reason: string): Promise<void> {
    await cli.runbook(...start);
    await atGate('approval');
    await cli.runbook('reject', service, '--by', 'erin', '--reason', reason);
    await cli.client.workflow
      .getHandle(`migrate-${service}`)
      .result()
      .catch(() => undefined);
  }

  test('holds no secret that the worker knows', async () => {
    const { secretAccessKey } = stack.s3;
    await withService(cli, async (run) => {
      const { service } = run;
      await reject(run, `the key is ${secretAccessKey}`);
      for (const format of ['json', 'markdown', 'html']) {
        const { code, stdout } = await cli.runbook('report', service, '--format', format, '--profiles', cli.profiles);
        expect(code).toBe(0);
        expect(stdout).toContain('the key is ');
        expect(stdout).not.toContain(secretAccessKey);
      }
    });
  });

  test('is refused when it is not what was archived, or is gone', async () => {
    await withService(cli, async (run) => {
      const { service } = run;
      await reject(run, 'enough');
      const { stdout } = await cli.runbook('report', service);
      const [, key = ''] = /s3:\/\/[^/]+\/(\S+report\.html)/.exec(stdout) ?? [];
      const { signal } = new AbortController();
      const store = openObjectStore({ ...stack.s3, forcePathStyle: true }, stack.s3);
      const fetched = ['report', service, '--format', 'html', '--profiles', cli.profiles];
      await store.put(key, 'something else', 'text/html', signal);
      const changed = await cli.runbook(...fetched);
      await store.delete(key, signal);
      const gone = await cli.runbook(...fetched);
      store.close();
      expect(changed).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringContaining('is not what the run archived'),
      });
      expect(gone).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('is not there any more') });
    });
  });

  test('cannot be fetched without the service’s profile', async () => {
    await withService(cli, async (run) => {
      const { service } = run;
      await reject(run, 'enough');
      const { code, stderr } = await cli.runbook('report', service, '--format', 'html', '--profiles', '/nowhere');
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^runbook: .*there is no profile in \/nowhere; --profiles \(RUNBOOK_PROFILES\) names the folder\n$/,
      );
    });
  });
});

describe('wrong usage ends with exit code 2 and one line', () => {
  test.each([
    ['no command', [], 'say what to do'],
    ['an unknown command', ['begin'], "unknown command 'begin'"],
    ['no service', ['status'], "missing required argument 'service'"],
    ['a missing option', ['start', 'svc', '--tag', 'v1'], "required option '--ticket <ticket>' not specified"],
    ['an unknown option', ['status', 'svc', '--colour'], "unknown option '--colour'"],
    [
      'an unknown action',
      ['recover', 'svc', '--by', 'x', '--reason', 'y', '--action', 'undo'],
      'retry, continue, rollback, restore, accept',
    ],
    ['a malformed message', ['approve', 'svc', '--by', ' '], 'approve: "by" is empty'],
    [
      'an unknown gate',
      ['approve', 'svc', '--by', 'x', '--gate', 'staging'],
      '"gate" must be one of production, qa, recovery',
    ],
    [
      'a window in the past',
      ['start', 'svc', ...REQUEST, '--window-start', '2020-01-01T00:00:00Z', '--window-end', '2020-01-01T01:00:00Z'],
      'the window lies in the past',
    ],
    [
      'an end before the start',
      ['start', 'svc', ...REQUEST, '--window-start', '2999-01-01T01:00:00Z', '--window-end', '2999-01-01T00:00:00Z'],
      'before or as it starts',
    ],
    ['several findings', ['start', 'Svc', ...REQUEST, '--target', '-1 x'], '2 findings: (1) the service must be'],
    ['no sensible time limit', ['approve', 'svc', '--by', 'x', '--time-limit', 'soon'], 'a number of seconds'],
  ])('%s', async (_name, words, text) => {
    const { code, stdout, stderr } = await cli.runbook(...words);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(text);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  test('help is none, and has an example for every command', async () => {
    const commands = [
      'setup',
      'worker',
      'start',
      'status',
      'watch',
      'plan',
      'approve',
      'reject',
      'abort',
      'recover',
      'report',
    ];
    const texts = await Promise.all(commands.map((command) => cli.runbook(command, '--help')));
    expect(texts.map(({ code }) => code)).toEqual(commands.map(() => 0));
    expect(
      texts.map(({ stdout }, index) => new RegExp(`Examples?:\\n  runbook ${commands[index]} `).test(stdout)),
    ).toEqual(commands.map(() => true));
  });
});

describe('runbook worker', () => {
  test('says when it is ready, and ends well on SIGTERM', async () => {
    const worker = cli.begin(
      'worker',
      '--profiles',
      cli.profiles,
      '--state',
      join(cli.profiles, 'state'),
      '--task-queue',
      'worker-test',
    );
    await worker.says(
      `worker ready: task queue worker-test, namespace ${cli.namespace}, server ${stack.temporal.address}\n`,
    );
    worker.kill('SIGTERM');
    const { code, stdout } = await worker.ended;
    expect(code).toBe(0);
    expect(stdout).toContain('worker stopped');
  });

  test('refuses to start without search attributes, bundle or profiles, and says what to do', async () => {
    const namespace = await createNamespace(stack.temporal.address);
    const [attributes, bundle, profiles] = await Promise.all([
      cli.runbook('worker', '--profiles', cli.profiles, '--state', cli.profiles, '--namespace', namespace),
      cli.runbook(
        'worker',
        '--profiles',
        cli.profiles,
        '--state',
        cli.profiles,
        '--bundle',
        join(cli.profiles, 'none.js'),
      ),
      cli.runbook('worker', '--profiles', join(cli.profiles, 'none'), '--state', cli.profiles),
    ]);
    expect([attributes, bundle, profiles].map(({ code }) => code)).toEqual([1, 1, 1]);
    expect(attributes.stderr).toContain('register them with: runbook setup');
    expect(bundle.stderr).toContain('build it with: npm run bundle');
    expect(profiles.stderr).toContain('the folder of profiles is not there');
  });

  test('refuses a run whose profile is malformed, naming file and line, and lives on', async () => {
    const service = 'malformed';
    await writeFile(join(cli.profiles, `${service}.yaml`), 'service: [');
    const worker = cli.begin(
      'worker',
      '--profiles',
      cli.profiles,
      '--state',
      join(cli.profiles, 'state'),
      '--task-queue',
      'malformed-test',
    );
    await worker.says('worker ready');
    const { code, stdout } = await cli.runbook(
      'start',
      service,
      ...REQUEST,
      '--task-queue',
      'malformed-test',
      '--wait',
    );
    worker.kill('SIGTERM');
    expect(code).toBe(3);
    expect(stdout).toContain(`✗ preconditions.request`);
    expect(stdout).toContain(`${service}.yaml:1`);
    expect((await worker.ended).code).toBe(0);
  });
});

describe('a signed approval', () => {
  let folder: string;
  let erin: SshKey;
  let stranger: SshKey;
  beforeAll(async () => {
    folder = await temporaryDirectory('runbook-keys');
    [erin, stranger] = await Promise.all([createSshKey(folder, 'erin'), createSshKey(folder, 'stranger')]);
  });

  /** The plan with its own digest, and signatures that are really verified. */
  const real = (): Partial<MigrationActivities> => ({
    sealPlan: async ({ plan }) => ({ plan, digest: canonicalDigest(plan), uri: 's3://evidence/plan' }),
    verifyApproval: ({ by, planDigest, signature, profile: { approvals } }) =>
      verifySignature({
        by,
        text: planDigest,
        signature,
        signers: approvals.signers,
        signal: new AbortController().signal,
        redactor: createRedactor([]),
      }),
  });
  const wanted = () => ({
    approvals: {
      ...profile.approvals,
      signers: [{ name: 'erin@example.com', key: erin.key }],
      signatures: 'required' as const,
    },
  });
  const digestOf = async (service: ServiceInTest): Promise<string> => {
    const { waiting } = await service.atGate('approval');
    return waiting?.for === 'approval' ? waiting.planDigest : '';
  };

  test('is made over the plan that was read, and counts', async () => {
    await withService(
      cli,
      async (running) => {
        const { service, start } = running;
        expect((await cli.runbook(...start)).code).toBe(0);
        const digest = await digestOf(running);
        const plan = await cli.runbook('plan', service);
        expect(plan.code).toBe(0);
        expect(plan.stdout).toContain(`plan ${digest}\n`);
        expect(plan.stdout).toContain('Rehearsed: ');
        expect(plan.stdout).toMatch(new RegExp(`runbook approve ${service} .* --plan ${digest} --sign`));
        const status = await cli.runbook('status', service);
        expect(status.stdout).toContain('1 signed approval(s) of plan ');
        const [, toPaste = ''] = /runbook (approve .*)/.exec(status.stdout) ?? [];
        const watching = cli.begin('watch', service);
        await watching.says(`runbook ${toPaste}`);
        watching.kill('SIGINT');
        await watching.ended;
        const json = JSON.parse((await cli.runbook('plan', service, '--json')).stdout) as SealedPlan;
        expect(canonicalDigest(json.plan)).toBe(digest);

        const words = (by: string) => ['approve', service, '--by', by, '--plan', digest.slice(0, 12)];
        const unsigned = await cli.runbook(...words('erin@example.com'));
        expect(unsigned.stderr).toMatch(/^runbook: refused: approvals of this service are signed/);
        const foreign = await cli.runbook(...words('erin@example.com'), '--sign', stranger.file);
        expect(foreign.stderr).toMatch(/does not know \(SHA256:/);
        const other = await cli.runbook(
          'approve',
          service,
          '--by',
          'erin@example.com',
          '--plan',
          'f'.repeat(64),
          '--sign',
          erin.file,
        );
        expect(other).toMatchObject({ code: 1, stdout: '' });
        expect(other.stderr).toMatch(/^runbook: not signed: the plan of .* is [0-9a-f]{12} now, not ffffffffffff/);
        expect(await cli.runbook(...words('erin@example.com'), '--sign', join(folder, 'none'))).toMatchObject({
          code: 1,
          stderr: `runbook: not signed: ssh-keygen could not sign with ${join(folder, 'none')}\n`,
        });
        expect(await cli.runbook('approve', service, '--by', 'erin@example.com', '--sign', erin.file)).toMatchObject({
          code: 2,
        });
        // The command is the one that status and watch print, with one's own name and key.
        const own = toPaste.replace('you@example.com', 'erin@example.com').replace('~/.ssh/id_ed25519', erin.file);
        expect(await cli.runbook(...own.split(' '))).toEqual({
          code: 0,
          stdout: 'approval of the gate production by erin@example.com counted\n',
          stderr: '',
        });
      },
      real,
      wanted(),
    );
  });

  test('is not made where the run shows another plan than its digest names', async () => {
    await withService(
      cli,
      async (running) => {
        const { service, start } = running;
        await cli.runbook(...start);
        await running.atGate('approval');
        const words = ['approve', service, '--by', 'erin@example.com', '--plan', DIGEST, '--sign', erin.file];
        for (const command of [words, ['plan', service]]) {
          const refused = await cli.runbook(...command);
          expect(refused.code).toBe(1);
          expect(refused.stderr).toContain(`the run says ${DIGEST}: do not approve it`);
        }
      },
      () => ({}),
      wanted(),
    );
  });

  test('is judged in a replay as it was, with what a reset hands in again', { timeout: 120_000 }, async () => {
    const workflowBundle = { code: await readFile(await ensureBundle(), 'utf8') };
    await withService(
      cli,
      async (running) => {
        const { service, start } = running;
        await cli.runbook(...start);
        const planDigest = await digestOf(running);
        const handle = cli.client.workflow.getHandle(`migrate-${service}`);
        const told = async () =>
          (await handle.query<readonly StepRecord[]>('timeline')).some(
            ({ id, status }) => id === 'gate.production/notify' && status === 'done',
          );
        while (!(await told())) await delay(50);
        const { runId } = await handle.describe();
        // temporal.api.enums.v1.EventType: workflow task completed
        const point = (await handle.fetchHistory()).events?.findLast(({ eventType }) => eventType === 7)?.eventId;
        const message = async (signature: string) => ({ by: 'erin@example.com', planDigest, signature });
        const bad = await message(await signText(stranger, planDigest));
        const update = async (signed: typeof bad): Promise<string> =>
          handle.executeUpdate('approve', { args: [signed] as never }).then(
            () => 'counted',
            () => 'refused',
          );
        expect(await update(bad)).toBe('refused');
        await handle.signal('approve', bad);
        expect(await update(await message(await signText(erin, planDigest)))).toBe('counted');
        await cli.client.workflowService.resetWorkflowExecution({
          namespace: cli.namespace,
          workflowExecution: { workflowId: handle.workflowId, runId },
          reason: 'test',
          requestId: randomUUID(),
          workflowTaskFinishEventId: point,
        });
        for (;;) {
          const { waiting } = await running.status();
          if (waiting?.for === 'approval' && waiting.approvedBy.length === 1) break;
          await delay(50);
        }
        await Worker.runReplayHistory({ workflowBundle }, await handle.fetchHistory(), handle.workflowId);
      },
      real,
      { approvals: { ...wanted().approvals, required: 2 } },
    );
  });
});

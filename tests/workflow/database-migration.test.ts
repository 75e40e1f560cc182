import { ApplicationFailure } from '@temporalio/common';
import { CancelledFailure, Context } from '@temporalio/activity';
import type { WorkflowHandle } from '@temporalio/client';
import { describe, expect, it } from 'vitest';
import type { RollbackInput } from '../../src/contract/evidence/rollback.ts';
import type { MigrationActivities } from '../../src/contract/activities.ts';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { RehearsalVerdict } from '../../src/contract/evidence/rehearsal.ts';
import type { MigrationPlan } from '../../src/contract/plan.ts';
import type { Profile } from '../../src/contract/profile.ts';
import {
  compared,
  profile,
  rolledBack,
  scriptedActivities,
  swapped,
  trial,
  wayBack,
  type World,
} from './scripted-activities.ts';
import { atGate, endOf, runMigration, until } from './running.ts';

const digest = 'ab'.repeat(32);
const approval = { by: 'erin@example.com', planDigest: digest.slice(0, 12) };

async function approve(handle: WorkflowHandle): Promise<void> {
  await until(handle, atGate('approval'));
  await handle.signal('approve', approval);
}

const untilCancelled = async (): Promise<never> => {
  const beating = setInterval(() => Context.current().heartbeat(), 200);
  try {
    return await Context.current().cancelled;
  } finally {
    clearInterval(beating);
  }
};

/** What was done, without what people were told. */
const stepsAmong = (calls: readonly string[]): string[] =>
  calls.filter((call) => !call.startsWith('tell:') && call !== 'performActions');

describe('a run that goes well', () => {
  it('walks the document in its order and ends succeeded with everything put back', async () => {
    const { world, activities } = scriptedActivities();
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'succeeded', summary: { openItems: [] } });
    const order = stepsAmong(world.calls);
    expect(order).toEqual([
      'acceptRequest',
      'reviewChange',
      'inspectAccess',
      'verifyMonitoring',
      'verifyTooling',
      'readMigrationGraph',
      'captureBackup',
      'verifyBackup',
      'migrateStaging',
      'exerciseApplication',
      'diffSchema',
      'inspectProduction',
      'restoreForRehearsal',
      'rehearseMigration',
      'rehearseSwap',
      'dropRehearsal',
      'identifyRun',
      'sealPlan',
      'identifyRun',
      'checkFreshness',
      'verifyTooling',
      'identifyRun',
      'captureMeasures',
      'readSwitch',
      'engageSwitch',
      'checkReplication',
      'inspectProduction',
      'checkReplication',
      'upgradeProduction',
      'runChecks',
      'runChecks',
      'compareMeasures',
      'validateSchema',
      'releaseSwitch',
      'archiveReport',
      'archiveReport',
    ]);
    expect(world.reports.at(-1)?.obligations).toMatchObject([
      { name: 'rehearsal databases', status: 'released' },
      { name: 'deployments', status: 'released' },
    ]);
  });
});

describe('the fence', () => {
  const fenced = { fence: { kind: 'read-only' } } as const;

  it('goes up before the last backup, is seen to hold, and is lifted before the smoke tests that write', async () => {
    const { world, activities } = scriptedActivities(undefined, {
      ...fenced,
      recoveryPoint: { restorePoint: true },
    });
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    const order = world.calls.slice(world.calls.indexOf('readFence'));
    expect(stepsAmong(order)).toEqual([
      'readFence',
      'engageFence',
      'checkReplication',
      'inspectProduction',
      'captureBackup',
      'verifyBackup',
      'createRecoveryPoint',
      'checkReplication',
      'proveFenceHeld',
      'upgradeProduction',
      'runChecks',
      'releaseFence',
      'runChecks',
      'compareMeasures',
      'validateSchema',
      'releaseSwitch',
      'archiveReport',
      'archiveReport',
    ]);
    expect(world.reports.at(-1)?.obligations).toMatchObject([
      { name: 'rehearsal databases', status: 'released' },
      { name: 'deployments', status: 'released' },
      { name: 'write fence', status: 'released' },
    ]);
  });

  it('that somebody wrote behind ends the run before the upgrade, put back', async () => {
    const { world, activities } = scriptedActivities(
      () => ({
        proveFenceHeld: async () => ({
          held: false,
          written: [{ table: 'public.jobs', inserted: 1, updated: 0, deleted: 0 }],
          unknown: [],
          counters: { uri: 's3://bucket/counters.json', sha256: '', bytes: 1 },
        }),
      }),
      fenced,
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('aborted');
    expect(end.summary?.findings[0]).toContain('public.jobs (+1 ~0 -0)');
    expect(world.calls).not.toContain('upgradeProduction');
    expect(world.calls).toContain('releaseFence');
  });

  it('that could not be raised for certain is lifted all the same, and told so', async () => {
    const lifted: string[] = [];
    const { world, activities } = scriptedActivities(
      () => ({
        engageFence: async () => {
          throw ApplicationFailure.nonRetryable('a superuser is connected', STEP_ERRORS.refused);
        },
        releaseFence: async ({ raised }) => {
          lifted.push(raised);
          return { state: 'released', detail: {} };
        },
      }),
      fenced,
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('aborted');
    expect(lifted).toEqual(['perhaps']);
    expect(world.reports.at(-1)?.obligations).toContainEqual(
      expect.objectContaining({ name: 'write fence', status: 'released' }),
    );
  });

  it('that somebody went round during the upgrade starts no recovery by itself: what he wrote is counted and exported', async () => {
    let proofs = 0;
    const { world, activities } = scriptedActivities(
      (state) => ({
        upgradeProduction: async () => {
          state.reality = { kind: 'partly-applied', revisions: [], clean: 'yes', why: 'stopped' };
          throw ApplicationFailure.nonRetryable('the upgrade failed', STEP_ERRORS.processFailed);
        },
        proveFenceHeld: async ({ footprint }) => {
          proofs += 1;
          const written = [{ table: 'public.payments', inserted: 3, updated: 0, deleted: 0 }];
          const counters = { uri: '', sha256: '', bytes: 1 };
          const held = footprint === undefined;
          return { held, written: held ? [] : written, unknown: [], counters };
        },
      }),
      {
        fence: { kind: 'read-only' },
        recovery: { ...profile.recovery, rollback: 'automatic', restore: 'automatic' },
      },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(JSON.stringify(status.waiting)).toContain(
        'somebody wrote behind the fence, or may have: public.payments (+3 ~0 -0)',
      );
      expect(status.wayBack?.by).toBe('anybody');
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'broken' }] });
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(proofs).toBe(3);
    expect(world.calls).toEqual(expect.arrayContaining(['countArrivals', 'salvageRows']));
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('wait to be brought back'));
  });

  it('stays up through a restore: what is taken back is the migration’s own, said at the gate', async () => {
    const { world, activities } = scriptedActivities(
      (state) => ({
        runChecks: async () => {
          if (state.reality.kind === 'fully-applied')
            throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
          return { checks: [] };
        },
      }),
      {
        ...fenced,
        switches: [...profile.switches, { ...profile.switches[0]!, name: 'pgbouncer', kind: 'pooler' }],
      },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(status.waiting).toMatchObject({ why: expect.stringContaining('the migration’s own') as string });
      expect(status.wayBack).toMatchObject({ basis: 'statistics', by: 'migration' });
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'data is damaged' }] });
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    const after = world.calls.slice(world.calls.indexOf('restoreFreshDatabase'));
    expect(stepsAmong(after).slice(0, 8)).toEqual([
      'restoreFreshDatabase',
      'readSwitch',
      'engageSwitch',
      'swapDatabases',
      'releaseSwitch',
      'runChecks',
      'releaseFence',
      'runChecks',
    ]);
  });
});

describe('a restore', () => {
  it('raises a fence again that was lifted before: nobody writes while the copy is made ready', async () => {
    const { world, activities } = scriptedActivities(
      (state) => ({
        compareMeasures: async () => {
          if (state.reality.kind === 'fully-applied')
            throw ApplicationFailure.nonRetryable('slower', STEP_ERRORS.checkFailed);
          return { values: [] };
        },
      }),
      { fence: { kind: 'read-only' } },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(status.wayBack).toMatchObject({ by: 'anybody' });
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'too slow' }] });
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    const after = world.calls.slice(world.calls.lastIndexOf('engageFence'));
    expect(stepsAmong(after).slice(0, 7)).toEqual([
      'engageFence',
      'restoreFreshDatabase',
      'salvageRows',
      'swapDatabases',
      'runChecks',
      'releaseFence',
      'runChecks',
    ]);
    expect(world.reports.at(-1)?.obligations).toContainEqual(
      expect.objectContaining({ name: 'write fence', status: 'released' }),
    );
  });

  it('that is done again puts back what was found before the first, not what the first has left switched', async () => {
    const is = { fence: 'released', pooler: 'released' };
    let [raised, resumed, exports, swaps] = [0, 0, 0, 0];
    const failing = (why: string) => ApplicationFailure.nonRetryable(why, STEP_ERRORS.stateUnexpected);
    const { activities } = scriptedActivities(
      (state) => ({
        runChecks: async () => {
          if (state.reality.kind === 'fully-applied' && is.fence === 'released') throw failing('playback is broken');
          return { checks: [] };
        },
        readSwitch: async ({ switch: { kind } }) => ({
          state: kind === 'pooler' && is.pooler === 'engaged' ? 'engaged' : 'released',
          detail: {},
        }),
        engageSwitch: async ({ switch: { kind } }) => {
          if (kind === 'pooler') is.pooler = 'engaged';
          return { state: 'engaged', detail: {} };
        },
        releaseSwitch: async ({ switch: { kind }, before }) => {
          if (kind !== 'pooler') return before;
          resumed += 1;
          if (resumed === 1) throw failing('the pooler does not answer');
          is.pooler = before.state;
          return before;
        },
        readFence: async () => ({ state: is.fence === 'engaged' ? 'engaged' : 'released', detail: {} }),
        engageFence: async () => {
          raised += 1;
          is.fence = 'engaged';
          if (raised === 2) throw failing('sessions remain that could write');
          const counters = { uri: '', sha256: '', bytes: 1 };
          return { state: { state: 'engaged', detail: {} }, since: '', endedSessions: 0, tried: '', counters };
        },
        releaseFence: async ({ before }) => {
          is.fence = before.state;
          return before;
        },
        salvageRows: async ({ backup: { uri } }) => {
          exports += 1;
          const archive = exports === 1 ? { uri: `${uri}/salvage-1`, sha256: '', bytes: 1 } : null;
          const lost = ['public.users (column note)'];
          return { cost: wayBack('comparison', undefined), lost, archive, manifest: archive };
        },
        swapDatabases: async () => {
          swaps += 1;
          if (swaps === 1) throw failing('a superuser is connected');
          state.reality = { kind: 'unchanged' };
          return swapped;
        },
      }),
      {
        fence: { kind: 'read-only' },
        switches: [...profile.switches, { ...profile.switches[0]!, name: 'pooler', kind: 'pooler' }],
        recovery: { ...profile.recovery, rollback: 'never' },
      },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      for (let time = 1; time <= 2; time += 1) {
        await until(handle, atGate('recovery'));
        await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'broken' }] });
      }
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(is).toEqual({ fence: 'released', pooler: 'released' });
    // What the first try exported may be nowhere else by then.
    expect(end.summary?.openItems).toContainEqual(expect.stringMatching(/brought back \(exported: \S+salvage-1;/));
    const lost = end.summary?.openItems.filter((item) => item.includes('is lost, unless'));
    expect(lost).toEqual([expect.stringContaining('public.users (column note)')]);
  });

  it('does not wait for an export that fails: the database kept aside has the rows', async () => {
    const { activities } = scriptedActivities(
      (state) => ({
        runChecks: async () => {
          if (state.reality.kind === 'fully-applied')
            throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
          return { checks: [] };
        },
        salvageRows: async () => {
          throw ApplicationFailure.nonRetryable('no room', STEP_ERRORS.refused);
        },
      }),
      { recovery: { ...profile.recovery, rollback: 'never' } },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, atGate('recovery'));
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'data is damaged' }] });
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(end.summary?.openItems).toEqual([
      expect.stringContaining('could not be exported'),
      expect.stringContaining('wait to be brought back (nothing was exported'),
    ]);
  });

  it('that does not fit into the window, with nothing faster at hand, ends the run before production is touched', async () => {
    const rehearseSwap = async () => ({ shutOut: 1, milliseconds: 700_000 });
    const snapshot = {
      kind: 'command',
      command: ['true'],
      directory: 'profile',
      environment: {},
      timeout: 1,
    } as const;
    const endWith = (recoveryPoint: Profile['recoveryPoint']) =>
      runMigration(scriptedActivities(() => ({ rehearseSwap }), { recoveryPoint }).activities, async (handle) => {
        await approve(handle);
        return endOf(handle);
      });
    const refused = await endWith({ restorePoint: false });
    expect(refused.outcome).toBe('aborted');
    expect(refused.summary?.findings[0]).toContain('faster way back');
    expect((await endWith({ restorePoint: false, snapshot })).outcome).toBe('succeeded');
  });
});

describe('the gate production', () => {
  it('refuses the requester, a stale digest and the same person twice, and counts different people', async () => {
    const { activities } = scriptedActivities(undefined, { approvals: { ...profile.approvals, required: 2 } });
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await expect(
        handle.executeUpdate('approve', { args: [{ by: 'Dana@Example.com', planDigest: digest }] }),
      ).rejects.toThrow('Workflow Update failed');
      await expect(
        handle.executeUpdate('approve', { args: [{ by: 'erin@example.com', planDigest: 'f'.repeat(64) }] }),
      ).rejects.toThrow('Workflow Update failed');
      await handle.executeUpdate('approve', { args: [approval] });
      await handle.signal('approve', { ...approval, by: 'ERIN@example.com' });
      const status = await until(handle, ({ refusals }) => refusals.count === 3);
      expect(status.waiting).toMatchObject({ missing: 1, approvedBy: ['erin@example.com'] });
      expect(status.refusals.last.map(({ why }) => why)).toEqual([
        expect.stringContaining('requested this run'),
        expect.stringContaining('plan to be approved is'),
        expect.stringContaining('has approved already'),
      ]);
      await handle.executeUpdate('approve', { args: [{ ...approval, by: 'frank@example.com' }] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
  });

  it('aborts when nobody approves in time, after reminders', async () => {
    const { world, activities } = scriptedActivities();
    const end = await runMigration(activities, endOf);
    expect(end).toMatchObject({ outcome: 'aborted', error: 'MigrationAborted' });
    expect(end.summary?.findings[0]).toContain('0 of 1 approvals');
    expect(world.calls.filter((call) => call === 'tell:gate-reminder').length).toBeGreaterThan(2);
    expect(world.calls).not.toContain('upgradeProduction');
  });

  it('ends aborted on a rejection, with its reason', async () => {
    const { activities } = scriptedActivities();
    const end = await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.signal('reject', { by: 'erin@example.com', reason: 'not tonight' });
      return endOf(handle);
    });
    expect(end).toMatchObject({
      outcome: 'aborted',
      summary: { findings: ['rejected by erin@example.com: not tonight'] },
    });
  });

  it('makes the plan anew when the execution is not the one it was made for', async () => {
    const ids = ['first', 'second', 'second', 'second'];
    const { world, activities } = scriptedActivities(() => ({
      identifyRun: async () => ({ currentRunId: ids.shift() ?? 'second' }),
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.executeUpdate('approve', { args: [approval] });
      await until(handle, (status) => atGate('approval')(status) && status.refusals.count === 1);
      await handle.executeUpdate('approve', { args: [approval] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(world.calls.filter((call) => call === 'sealPlan')).toHaveLength(2);
  });
});

describe('a rehearsal', () => {
  it('that does not hold any more voids the approvals: a fresh backup is rehearsed, the gate opens anew', async () => {
    const expired = [['production has grown by 40 %'], []];
    const plans: MigrationPlan[] = [];
    const { world, activities } = scriptedActivities(() => ({
      checkFreshness: async ({ commit }) => ({ expired: expired.shift() ?? [], commit, databaseBytes: 1 }),
      sealPlan: async ({ plan }) => {
        plans.push(plan);
        return { plan, digest: String(plans.length).repeat(64), uri: 's3://evidence/plan' };
      },
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      const first = { by: 'erin@example.com', planDigest: '1'.repeat(64) };
      await handle.executeUpdate('approve', { args: [first] });
      const status = await until(handle, (now) => atGate('approval')(now) && now.planDigest === '2'.repeat(64));
      expect(status.refusals.last.at(-1)?.why).toContain('grown by 40 %');
      await expect(handle.executeUpdate('approve', { args: [first] })).rejects.toThrow('Workflow Update failed');
      await handle.executeUpdate('approve', { args: [{ ...first, planDigest: '2'.repeat(64) }] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(plans.map(({ opening }) => opening)).toEqual([1, 2]);
    expect(world.calls.filter((call) => call === 'captureBackup')).toHaveLength(2);
    expect(world.calls.filter((call) => call === 'rehearseMigration')).toHaveLength(2);
  });

  it('that expires while people decide is made anew: no approval counts for what does not hold', async () => {
    const { world, activities } = scriptedActivities(undefined, {
      rehearsal: { ...profile.rehearsal, maximumAge: 600_000 },
      approvals: { ...profile.approvals, timeout: 1_500_000, remindEvery: 3_600_000 },
    });
    const end = await runMigration(activities, endOf);
    expect(end).toMatchObject({ outcome: 'aborted' });
    expect(end.summary?.verdict).toContain('0 of 1 approvals');
    expect(world.calls.filter((call) => call === 'rehearseMigration')).toHaveLength(3);
  });

  it('that has expired by the server’s clock when the window opens is made anew, whatever the worker’s clock says', async () => {
    const { world, activities } = scriptedActivities(undefined, {
      rehearsal: { ...profile.rehearsal, maximumAge: 600_000 },
      approvals: { ...profile.approvals, timeout: 1_900_000, remindEvery: 3_600_000 },
    });
    const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString();
    const end = await runMigration(
      activities,
      async (handle) => {
        await until(handle, atGate('approval'));
        await handle.executeUpdate('approve', { args: [approval] });
        return endOf(handle);
      },
      { windowStart: at(30), windowEnd: at(240) },
    );
    expect(end).toMatchObject({ outcome: 'aborted' });
    expect(world.reports.at(-1)?.refusals.last[0]?.why).toContain('it holds until');
    expect(world.calls.filter((call) => call === 'rehearseMigration')).toHaveLength(2);
  });

  it('of another commit than the tag names now ends the run before production is touched', async () => {
    const { world, activities } = scriptedActivities(() => ({
      checkFreshness: async () => ({ expired: [], commit: 'd'.repeat(40), databaseBytes: 1 }),
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('aborted');
    expect(end.summary?.findings[0]).toContain('reviewed, rehearsed and approved');
    expect(world.calls).not.toContain('upgradeProduction');
  });

  it('that fails ends the run aborted, with its databases dropped', async () => {
    const { world, activities } = scriptedActivities(() => ({
      rehearseMigration: async () => {
        throw ApplicationFailure.nonRetryable('revision 0002 fails on the copy', STEP_ERRORS.checkFailed);
      },
    }));
    const end = await runMigration(activities, endOf);
    expect(end).toMatchObject({ outcome: 'aborted', summary: { openItems: [] } });
    expect(world.calls).toContain('dropRehearsal');
    expect(world.calls).not.toContain('sealPlan');
  });

  it('whose databases cannot be dropped does not hold the run up: they are listed as open, and expire', async () => {
    const { activities } = scriptedActivities(() => ({
      dropRehearsal: async () => {
        throw ApplicationFailure.nonRetryable('the scratch server is gone', STEP_ERRORS.refused);
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    expect(end.summary?.openItems).toEqual([expect.stringContaining('runbook sweep whisper-transcriber')]);
  });

  const upgradedWithoutReply = (verdict: RehearsalVerdict) =>
    scriptedActivities(
      (state) => ({
        rehearseMigration: async () => ({ ...trial(), verdict }),
        upgradeProduction: async () => {
          state.reality = { kind: 'fully-applied' };
          throw ApplicationFailure.nonRetryable('the worker lost its reply', STEP_ERRORS.processFailed);
        },
      }),
      { fence: { kind: 'read-only' }, recovery: { ...profile.recovery, rollback: 'automatic' } },
    );

  it('that was lossless lets the rollback start by itself', async () => {
    const { world, activities } = upgradedWithoutReply({ kind: 'lossless' });
    await runMigration(activities, async (handle) => {
      await approve(handle);
      expect(await endOf(handle)).toMatchObject({ outcome: 'rolled-back' });
    });
    expect(world.calls.filter((call) => call === 'rollBackProduction')).toHaveLength(1);
  });

  it('that was lossy waits for a person, who is told what the rollback loses', async () => {
    const lost = [{ table: 'public.users', column: 'email', values: 3 }];
    const { world, activities } = upgradedWithoutReply({ kind: 'lossy', lost, objects: [] });
    await runMigration(activities, async (handle) => {
      await approve(handle);
      const { waiting } = await until(handle, atGate('recovery'));
      expect(waiting).toMatchObject({ why: expect.stringContaining('3 value(s) of public.users.email') });
      expect(world.calls).not.toContain('rollBackProduction');
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'rollback', reason: 'known' }] });
      const end = await endOf(handle);
      expect(end.outcome).toBe('rolled-back');
      // Objects equal to before are not rows equal to before.
      expect(end.summary?.openItems).toEqual([expect.stringContaining('3 value(s) of public.users.email')]);
    });
  });

  it('is followed by a count of what came since: rows that a rollback would drop wait for a person', async () => {
    const { activities } = scriptedActivities(
      (state) => ({
        runChecks: async () => {
          if (state.reality.kind === 'fully-applied')
            throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
          return { checks: [] };
        },
        countArrivals: async () => ({
          objects: [{ table: 'public.speakers', column: null, rows: 0, found: 7 }],
          total: 7,
          archive: { uri: 's3://evidence/arrivals', sha256: '0'.repeat(64), bytes: 1 },
          unknown: [],
          unseen: ['public.speakers (since the upgrade ended 2 row(s) were changed and 1 deleted, 3 inserted)'],
        }),
      }),
      { recovery: { ...profile.recovery, rollback: 'ask' } },
    );
    await runMigration(activities, async (handle) => {
      await approve(handle);
      const { waiting } = await until(handle, atGate('recovery'));
      expect(waiting).toMatchObject({
        why: expect.stringMatching(
          /7 in public\.speakers, exported to s3:.*counted is how many rows there are, not which.*public\.speakers \(since the upgrade ended 2 row/,
        ),
      });
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'rollback', reason: 'exported' }] });
      const end = await endOf(handle);
      expect(end.outcome).toBe('rolled-back');
      expect(end.summary?.openItems).toEqual([
        expect.stringMatching(
          /^rows changed or deleted in place since the upgrade show in no count.*1 deleted.*in s3:/,
        ),
        expect.stringMatching(/7 rows or values, exported to s3:/),
      ]);
    });
  });
});

describe('a backup', () => {
  it('that is too old by the server’s clock is taken again, though the clock of the worker that took it ran ahead', async () => {
    const ordinary = scriptedActivities().activities;
    const { world, activities } = scriptedActivities(() => ({
      captureBackup: async (input) => ({
        ...(await ordinary.captureBackup(input)),
        capturedAt: '2099-01-01T00:00:00.000Z',
      }),
    }));
    const at = (hours: number): string => new Date(Date.now() + hours * 3_600_000).toISOString();
    const end = await runMigration(
      activities,
      async (handle) => {
        await until(handle, atGate('approval'));
        await handle.executeUpdate('approve', { args: [approval] });
        return endOf(handle);
      },
      { windowStart: at(2), windowEnd: at(5) },
    );
    expect(end.outcome).toBe('succeeded');
    expect(world.calls.filter((call) => call === 'captureBackup')).toHaveLength(2);
  });
});

describe('messages without end', () => {
  it('signatures that do not count are looked at a hundred times, then refused unseen; other approvals still count', async () => {
    const { world, activities } = scriptedActivities(() => ({
      verifyApproval: async () => ({ valid: false, why: 'the key is nobody’s' }),
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      const forged = { ...approval, signature: '-----BEGIN SSH SIGNATURE-----' };
      await Promise.all(Array.from({ length: 120 }, () => handle.signal('approve', forged)));
      await until(handle, ({ refusals }) => refusals.count === 120);
      await handle.signal('approve', forged);
      const status = await until(handle, ({ refusals }) => refusals.count === 121);
      expect(status.refusals.last.map(({ why }) => why)).toContainEqual(expect.stringContaining('no further one is'));
      await handle.executeUpdate('approve', { args: [approval] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(world.calls.filter((call) => call === 'verifyApproval')).toHaveLength(100);
  });

  it('a run is repeated fifty times by decision, not for ever', async () => {
    const { activities } = scriptedActivities(() => ({
      validateSchema: async () => {
        throw ApplicationFailure.nonRetryable('differs', STEP_ERRORS.checkFailed);
      },
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.executeUpdate('approve', { args: [approval] });
      const atGateAfter = (decisions: number) =>
        until(handle, (now) => atGate('recovery')(now) && now.decisions.length === decisions);
      const decide = (action: string) => handle.signal('recover', { by: 'erin@example.com', action, reason: 'again' });
      for (let times = 1; times <= 50; times += 1) {
        await atGateAfter(times);
        await decide('retry');
      }
      const { waiting, actions } = await atGateAfter(51);
      expect(actions).not.toContain('retry');
      expect(actions).not.toContain('continue');
      expect(waiting).toMatchObject({ why: expect.stringContaining('chosen 50 times') });
      await decide('accept');
      expect(await endOf(handle)).toMatchObject({ outcome: 'handed-over' });
    });
  });
});

describe('a signed approval', () => {
  const signed = { ...approval, signature: '-----BEGIN SSH SIGNATURE-----' };

  it('counts once its signature is verified, and the record names the key', async () => {
    const { world, activities } = scriptedActivities();
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.executeUpdate('approve', { args: [signed] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(world.calls).toContain('verifyApproval');
    expect(world.reports.at(-1)?.decisions).toMatchObject([{ what: 'approve', key: 'SHA256:scripted' }]);
  });

  it('whose signature is not valid is refused, to its sender and in the status', async () => {
    const { activities } = scriptedActivities(() => ({
      verifyApproval: async () => ({ valid: false, why: 'the key is nobody’s' }),
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await expect(handle.executeUpdate('approve', { args: [signed] })).rejects.toThrow('Workflow Update failed');
      await handle.signal('approve', signed);
      const status = await until(handle, ({ refusals }) => refusals.count === 2);
      expect(status.refusals.last.map(({ why }) => why)).toEqual([
        expect.stringContaining('the key is nobody’s'),
        expect.stringContaining('the key is nobody’s'),
      ]);
      await handle.executeUpdate('approve', { args: [approval] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
  });

  it('is demanded where the profile says so', async () => {
    const { activities } = scriptedActivities(undefined, {
      approvals: { ...profile.approvals, signatures: 'required' },
    });
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await expect(handle.executeUpdate('approve', { args: [approval] })).rejects.toThrow('Workflow Update failed');
      const status = await until(handle, ({ refusals }) => refusals.count === 1);
      expect(status.refusals.last[0]?.why).toContain('--sign');
      await handle.executeUpdate('approve', { args: [signed] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
  });
});

describe('messages that cross each other', () => {
  it('an approval does not wait for a notification that hangs, and what comes after it meets no gate', async () => {
    const { world, activities } = scriptedActivities((state) => ({
      performActions: async ({ message }) => {
        state.calls.push(`tell:${message.kind}`);
        return message.kind === 'gate-opened' ? untilCancelled() : { delivered: [] };
      },
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, ({ waiting }) => waiting?.for === 'approval');
      await handle.executeUpdate('approve', { args: [approval] });
      await expect(
        handle.executeUpdate('reject', { args: [{ by: 'frank@example.com', reason: 'too late' }] }),
      ).rejects.toThrow('Workflow Update failed');
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(world.calls).toContain('upgradeProduction');
  });

  it('an abort closes the gate: a later approval is refused', async () => {
    const { activities } = scriptedActivities(() => ({
      releaseSwitch: untilCancelled,
      checkReplication: untilCancelled,
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.executeUpdate('approve', { args: [approval] });
      await until(handle, ({ step }) => step?.id === 'apply.replication');
      await handle.executeUpdate('abort', { args: [{ by: 'frank@example.com', reason: 'stop' }] });
      const status = await until(handle, ({ step }) => step?.id === 'closeout.resume/deployments');
      expect(status.waiting).toBeUndefined();
      await expect(handle.executeUpdate('approve', { args: [{ ...approval, by: 'gina' }] })).rejects.toThrow(
        'Workflow Update failed',
      );
    });
  });

  it('an abort ends as aborted although the ticket cannot be written', async () => {
    const { activities } = scriptedActivities(() => ({
      performActions: async ({ message }) => {
        if (message.kind !== 'outcome-recorded') return { delivered: [] };
        throw ApplicationFailure.nonRetryable('no ticket system', STEP_ERRORS.refused);
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.signal('abort', { by: 'frank@example.com', reason: 'stop' });
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'aborted', error: 'MigrationAborted' });
    expect(end.summary?.openItems).toEqual([expect.stringContaining('could not be written into the ticket')]);
  });
});

describe('the change window', () => {
  it('is judged again right before the upgrade: one that closed meanwhile ends the run', async () => {
    const { world, activities } = scriptedActivities(
      (state) => ({
        checkReplication: async () => {
          await new Promise((resolve) => setTimeout(resolve, state.calls.length > 0 ? 1500 : 0));
          return { standbys: [] };
        },
      }),
      { window: { length: 6000 } },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('aborted');
    expect(end.summary?.findings[0]).toContain('window');
    expect(world.calls).not.toContain('upgradeProduction');
  });
});

describe('checks after a second upgrade', () => {
  it('are made again', async () => {
    let upgrades = 0;
    const { world, activities } = scriptedActivities((state) => ({
      upgradeProduction: async () => {
        upgrades += 1;
        state.reality = { kind: 'fully-applied' };
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
      rollBackProduction: async () => {
        state.reality = { kind: 'partly-applied', revisions: [], clean: 'yes', why: 'half way' };
        throw ApplicationFailure.nonRetryable('half way', STEP_ERRORS.processFailed, { untouched: true });
      },
      validateSchema: async () => {
        if (upgrades === 1) throw ApplicationFailure.nonRetryable('other objects', STEP_ERRORS.checkFailed);
        return { expected: [], changes: 1, versionRows: ['0002'], notCompared: [] };
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      for (const action of ['rollback', 'retry']) {
        await until(handle, ({ actions }) => actions.includes(action as never));
        await handle.executeUpdate('recover', { args: [{ by: 'erin', action, reason: 'test' }] });
      }
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    expect(upgrades).toBe(2);
    const later = world.calls.slice(world.calls.lastIndexOf('upgradeProduction'));
    expect(later.filter((call) => call === 'runChecks')).toHaveLength(2);
  });
});

describe('an abort', () => {
  it('before the upgrade stops the step that runs and puts back what was switched', async () => {
    const { world, activities } = scriptedActivities(() => ({ checkReplication: untilCancelled }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, ({ step }) => step?.id === 'apply.replication');
      await handle.signal('abort', { by: 'frank@example.com', reason: 'disk alarm' });
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'aborted' });
    expect(world.calls).toContain('releaseSwitch');
    expect(world.calls).not.toContain('upgradeProduction');
  });

  it('during the upgrade evaluates, then rolls back by itself where the plan allows it', async () => {
    const { world, activities } = scriptedActivities(
      (state) => ({
        upgradeProduction: async () => {
          state.reality = { kind: 'partly-applied', revisions: ['0002a'], clean: 'yes', why: 'test' };
          return untilCancelled();
        },
      }),
      { fence: { kind: 'read-only' }, recovery: { ...profile.recovery, rollback: 'automatic' } },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, ({ step }) => step?.id === 'apply.upgrade');
      await handle.signal('abort', { by: 'frank@example.com', reason: 'enough' });
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'rolled-back', error: 'MigrationRolledBack' });
    const after = world.calls.slice(world.calls.indexOf('upgradeProduction'));
    expect(after).toEqual(
      expect.arrayContaining(['evaluateProduction', 'rollBackProduction', 'runChecks', 'releaseSwitch']),
    );
  });

  it('by cancel of the workflow ends it Cancelled when production is unchanged', async () => {
    const { activities } = scriptedActivities();
    const end = await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.cancel();
      return endOf(handle);
    });
    expect(end.error).toBe(CancelledFailure.name);
  });
});

describe('a rollback that begins in the middle of what was rehearsed', () => {
  const partly = { kind: 'partly-applied', revisions: ['0002a'], clean: 'yes', why: 'test' } as const;
  const stopped =
    (changes: (state: World) => Partial<MigrationActivities> = () => ({})) =>
    (state: World): Partial<MigrationActivities> => ({
      upgradeProduction: async () => {
        state.reality = partly;
        throw ApplicationFailure.nonRetryable('the upgrade failed', STEP_ERRORS.processFailed);
      },
      ...changes(state),
    });
  const others = () => ({
    compareRowsWithBackup: async () => compared(['table public.notes: 3 rows in both, but not the same ones']),
  });
  const automatic = (restore: 'ask' | 'automatic') =>
    ({ fence: { kind: 'read-only' }, recovery: { ...profile.recovery, rollback: 'automatic', restore } }) as const;
  const decide = (handle: WorkflowHandle, action: string) =>
    handle.executeUpdate('recover', { args: [{ by: 'erin', action, reason: 'test' }] });

  it('is proven by the rows, behind the fence, before it counts as one', async () => {
    const { world, activities } = scriptedActivities(stopped(), automatic('ask'));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('rolled-back');
    expect(end.summary?.verdict).toContain('rows equal to the backup');
    expect(end.summary?.openItems).toEqual([]);
    const after = stepsAmong(world.calls.slice(world.calls.indexOf('rollBackProduction')));
    expect(after.slice(0, 4)).toEqual([
      'rollBackProduction',
      'evaluateProduction',
      'proveFenceHeld',
      'compareRowsWithBackup',
    ]);
  });

  it('whose rows are others is for a person to judge, and is not called a rollback by the objects', async () => {
    const { world, activities } = scriptedActivities(stopped(others), automatic('ask'));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(status.actions).toEqual(['retry', 'continue', 'restore', 'accept']);
      expect(JSON.stringify(status.waiting)).toContain('not the same ones');
      expect(JSON.stringify(status.waiting)).toContain('retry\\" looks again');
      await decide(handle, 'restore');
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(JSON.stringify(end.summary?.openItems)).not.toContain('not those of the backup');
    expect(world.calls).toContain('swapDatabases');
  });

  it('whose rows are others is followed by the restore where the profile lets that start by itself', async () => {
    const { world, activities } = scriptedActivities(stopped(others), automatic('automatic'));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(world.calls).toContain('rollBackProduction');
  });

  it('whose rows are others because somebody went round the fence is restored by nobody’s but a person’s decision', async () => {
    let isRolledBack = false;
    const { world, activities } = scriptedActivities(
      stopped((state) => ({
        ...others(),
        rollBackProduction: async () => {
          isRolledBack = true;
          state.reality = { kind: 'unchanged' };
          return rolledBack;
        },
        proveFenceHeld: async () => ({
          held: !isRolledBack,
          written: isRolledBack ? [{ table: 'public.orders', inserted: 1, updated: 0, deleted: 0 }] : [],
          unknown: [],
          counters: { uri: '', sha256: '', bytes: 1 },
        }),
      })),
      automatic('automatic'),
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(JSON.stringify(status.waiting)).toContain('public.orders (+1 ~0 -0)');
      await decide(handle, 'restore');
      return endOf(handle);
    });
    expect(end.outcome).toBe('restored');
    expect(world.calls).toContain('salvageRows');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('wait to be brought back'));
  });

  it.each([STEP_ERRORS.unavailable, STEP_ERRORS.refused])(
    'whose rows could not be compared (%s) is restored by nobody’s but a person’s decision, and may be accepted',
    async (type) => {
      const silent = () => ({
        compareRowsWithBackup: async () => {
          throw ApplicationFailure.nonRetryable('no key', type, { findings: ['no key'] });
        },
      });
      const { world, activities } = scriptedActivities(stopped(silent), automatic('automatic'));
      const end = await runMigration(activities, async (handle) => {
        await approve(handle);
        await until(handle, atGate('recovery'));
        await decide(handle, 'continue');
        return endOf(handle);
      });
      expect(end.outcome).toBe('rolled-back');
      expect(end.summary?.openItems).toContainEqual(expect.stringContaining('accepted by a person'));
      expect(end.summary?.verdict).toContain('rows not proven to be');
      expect(world.calls).not.toContain('swapDatabases');
    },
  );

  it('whose rows are others stays in doubt through a restore that fails: no upgrade, and said when it is handed over', async () => {
    const { world, activities } = scriptedActivities(
      stopped(() => ({
        ...others(),
        restoreFreshDatabase: async () => {
          throw ApplicationFailure.nonRetryable('no room', STEP_ERRORS.refused);
        },
      })),
      automatic('automatic'),
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      for (const [decisions, action] of [
        [1, 'retry'],
        [2, 'accept'],
      ] as const) {
        const status = await until(handle, (now) => atGate('recovery')(now) && now.decisions.length === decisions);
        expect(JSON.stringify(status.waiting)).toContain('not the same ones');
        await decide(handle, action);
      }
      return endOf(handle);
    });
    expect(end.outcome).toBe('handed-over');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('not those of the backup'));
    expect(world.calls.filter((call) => call === 'upgradeProduction')).toHaveLength(1);
    expect(world.calls.filter((call) => call === 'compareRowsWithBackup')).toHaveLength(3);
  });

  it('that failed, with the upgrade completed by hand: to go on over it is a person’s, and stays an open item', async () => {
    const { world, activities } = scriptedActivities(
      stopped(() => ({
        rollBackProduction: async () => {
          throw ApplicationFailure.nonRetryable('the downgrade failed', STEP_ERRORS.processFailed);
        },
      })),
      automatic('ask'),
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, atGate('recovery'));
      world.reality = { kind: 'fully-applied' };
      for (const [decisions, action] of [
        [1, 'retry'],
        [2, 'continue'],
      ] as const) {
        await until(handle, (now) => atGate('recovery')(now) && now.decisions.length === decisions);
        await decide(handle, action);
      }
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('not proven to be those of the backup'));
    expect(world.calls.filter((call) => call === 'upgradeProduction')).toHaveLength(1);
  });

  it('is compared although its reply was lost and production could not be read after it', async () => {
    let looks = 0;
    const { world, activities } = scriptedActivities(
      stopped((state) => ({
        rollBackProduction: async () => {
          state.reality = { kind: 'unchanged' };
          throw ApplicationFailure.nonRetryable('the store does not answer', STEP_ERRORS.refused);
        },
        evaluateProduction: async () => {
          looks += 1;
          if (looks === 2) throw ApplicationFailure.nonRetryable('no answer', STEP_ERRORS.refused);
          return {
            reality: state.reality,
            versionRows: [],
            objectMapDigest: '',
            differences: [],
            leftovers: [],
            droppedInvalidIndexes: [],
            endedSessions: 0,
          };
        },
      })),
      automatic('ask'),
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, atGate('recovery'));
      await decide(handle, 'retry');
      return endOf(handle);
    });
    expect(end.outcome).toBe('rolled-back');
    expect(world.calls.filter((call) => call === 'upgradeProduction')).toHaveLength(1);
    expect(world.calls).toContain('compareRowsWithBackup');
  });

  it('without a fence has nothing to be compared with: said at the gate, left open, and no cancel makes it a clean end', async () => {
    const { world, activities } = scriptedActivities(stopped());
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(JSON.stringify(status.waiting)).toContain('cannot be compared with the backup after it');
      await handle.cancel();
      await decide(handle, 'rollback');
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'rolled-back', error: 'MigrationRolledBack' });
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('in the middle of what was rehearsed'));
    expect(world.calls).not.toContain('compareRowsWithBackup');
  });
});

describe('an undo that was not the one rehearsed', () => {
  const fenced = { fence: { kind: 'read-only' } } as const;
  const schemaDiffers = () => ({
    validateSchema: async () => {
      throw ApplicationFailure.nonRetryable('other objects', STEP_ERRORS.checkFailed);
    },
  });
  const decide = (handle: WorkflowHandle, action: string) =>
    handle.executeUpdate('recover', { args: [{ by: 'erin', action, reason: 'test' }] });
  const gateAfter = (handle: WorkflowHandle, decisions: number) =>
    until(handle, (now) => atGate('recovery')(now) && now.decisions.length === decisions);

  it('counts what came although the fence is up again: it was raised for a restore', async () => {
    const inputs: RollbackInput[] = [];
    const { world, activities } = scriptedActivities(
      (state) => ({
        ...schemaDiffers(),
        restoreFreshDatabase: async () => {
          throw ApplicationFailure.nonRetryable('no room', STEP_ERRORS.refused);
        },
        rollBackProduction: async (input) => {
          inputs.push(input);
          state.reality = { kind: 'unchanged' };
          return rolledBack;
        },
      }),
      fenced,
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      await decide(handle, 'restore');
      const status = await gateAfter(handle, 2);
      expect(JSON.stringify(status.waiting)).toContain('raised for the restore is still up');
      await decide(handle, 'rollback');
      return endOf(handle);
    });
    expect(end.outcome).toBe('rolled-back');
    expect(world.calls.filter((call) => call === 'countArrivals')).toHaveLength(2);
    expect(inputs[0]?.arrivals).not.toBeNull();
  });

  it('that failed is not taken for the upgrade’s success: a retry looks again, to go on is a person’s and told', async () => {
    const { world, activities } = scriptedActivities(
      () => ({
        upgradeProduction: async () => {
          world.reality = { kind: 'fully-applied' };
          throw ApplicationFailure.nonRetryable('the worker lost its reply', STEP_ERRORS.processFailed);
        },
        rollBackProduction: async () => {
          throw ApplicationFailure.nonRetryable('the downgrade failed', STEP_ERRORS.processFailed);
        },
      }),
      { ...fenced, recovery: { ...profile.recovery, rollback: 'automatic' } },
    );
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      expect(JSON.stringify((await gateAfter(handle, 1)).waiting)).toContain('a rollback was interrupted');
      await decide(handle, 'retry');
      await gateAfter(handle, 2);
      await decide(handle, 'continue');
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('a rollback was interrupted'));
  });

  it('that failed without having changed anything leaves no doubt', async () => {
    const { activities } = scriptedActivities((state) => ({
      ...schemaDiffers(),
      rollBackProduction: async () => {
        throw ApplicationFailure.nonRetryable('locked out', STEP_ERRORS.processFailed, { untouched: true });
      },
      compareMeasures: async () => {
        state.reality = { kind: 'fully-applied' };
        throw ApplicationFailure.nonRetryable('slow', STEP_ERRORS.checkFailed);
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      await decide(handle, 'rollback');
      expect(JSON.stringify((await gateAfter(handle, 2)).waiting)).not.toContain('a rollback was interrupted');
      await decide(handle, 'accept');
      return endOf(handle);
    });
    expect(end.outcome).toBe('handed-over');
    expect(JSON.stringify(end.summary?.openItems)).not.toContain('a rollback was interrupted');
  });

  it('that somebody else did while a person decided is seen before a retry, and no upgrade is started over it', async () => {
    const { world, activities } = scriptedActivities(schemaDiffers);
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      world.reality = { kind: 'unchanged' };
      await decide(handle, 'retry');
      expect(JSON.stringify((await gateAfter(handle, 2)).waiting)).toContain('undone by others');
      await decide(handle, 'continue');
      return endOf(handle);
    });
    expect(end.outcome).toBe('rolled-back');
    expect(end.summary?.verdict).toContain('by others than this run');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('undone by others'));
    expect(world.calls.filter((call) => call === 'upgradeProduction')).toHaveLength(1);
  });

  it('is not begun where production is not what the decision was about any more', async () => {
    const { world, activities } = scriptedActivities(schemaDiffers);
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      world.reality = { kind: 'foreign', why: 'somebody was faster' };
      await decide(handle, 'rollback');
      expect(JSON.stringify((await gateAfter(handle, 2)).waiting)).toContain('was not carried out');
      await decide(handle, 'accept');
      return endOf(handle);
    });
    expect(end.outcome).toBe('handed-over');
    expect(world.calls).not.toContain('rollBackProduction');
  });

  it.each([
    [STEP_ERRORS.unavailable, true],
    [STEP_ERRORS.refused, false],
  ])('by a swap that ended with %s: told that it may have gone through: %s', async (type, isTold) => {
    const { activities } = scriptedActivities(() => ({
      ...schemaDiffers(),
      swapDatabases: async () => {
        throw ApplicationFailure.nonRetryable('no answer', type);
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      await decide(handle, 'restore');
      const status = await gateAfter(handle, 2);
      expect(JSON.stringify(status.waiting).includes('has not answered')).toBe(isTold);
      await decide(handle, 'accept');
      return endOf(handle);
    });
    expect(end.outcome).toBe('handed-over');
    expect(JSON.stringify(end.summary?.openItems).includes('has not answered')).toBe(isTold);
  });

  it('whose check a person overruled is followed by the checks after it, and says so', async () => {
    const { world, activities } = scriptedActivities((state) => ({
      upgradeProduction: async () => {
        throw ApplicationFailure.nonRetryable('the upgrade failed', STEP_ERRORS.processFailed);
      },
      runChecks: async () => {
        if (state.calls.filter((call) => call === 'runChecks').length === 1)
          throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
        return { checks: [] };
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await gateAfter(handle, 1);
      await decide(handle, 'continue');
      return endOf(handle);
    });
    expect(end.outcome).toBe('aborted');
    expect(end.summary?.openItems).toContainEqual(expect.stringContaining('overruled a check after it'));
    expect(world.calls.filter((call) => call === 'runChecks')).toHaveLength(2);
  });
});

describe('the deadline', () => {
  it('stops the upgrade while there is time for the way back, and aborts when nothing was changed', async () => {
    const { activities } = scriptedActivities(() => ({ upgradeProduction: untilCancelled }), {
      window: { length: 7000 },
    });
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'aborted' });
    expect(end.summary?.verdict).toContain('point of no return');
  });
});

describe('the gate recovery', () => {
  const smokeFails = (world: { reality: { kind: string } }) => ({
    runChecks: async () => {
      if (world.reality.kind === 'fully-applied')
        throw ApplicationFailure.nonRetryable('playback is broken', STEP_ERRORS.checkFailed);
      return { checks: [] };
    },
  });

  it('waits for a person after a failed smoke test, refuses what is impossible, restores on demand', async () => {
    const { world, activities } = scriptedActivities(smokeFails, {
      recovery: { ...profile.recovery, rollback: 'never' },
    });
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(status.actions).toEqual(['retry', 'continue', 'restore', 'accept']);
      await expect(
        handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'rollback', reason: 'try' }] }),
      ).rejects.toThrow('Workflow Update failed');
      await handle.signal('abort', { by: 'frank', reason: 'again' });
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'restore', reason: 'data is damaged' }] });
      return endOf(handle);
    });
    expect(end).toMatchObject({
      outcome: 'restored',
      error: 'MigrationRestored',
      summary: { keptAside: 'whisper_before_1' },
    });
    expect(world.calls).toContain('tell:retrospective-scheduled');
    expect(world.calls).toContain('tell:stakeholders-informed');
  });

  it('goes on after a false alarm, recorded as overruled, without asking passed checks again', async () => {
    const { world, activities } = scriptedActivities(smokeFails);
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      for (let count = 0; count < 2; count += 1) {
        await until(handle, atGate('recovery'));
        await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'continue', reason: 'known' }] });
      }
      return endOf(handle);
    });
    expect(end.outcome).toBe('succeeded');
    expect(end.summary?.verdict).toContain('overruled by a person: apply.smoke, apply.smoke-writes');
    expect(world.calls.filter((call) => call === 'runChecks')).toHaveLength(2);
    expect(world.reports.at(-1)?.timeline.filter(({ status }) => status === 'overruled')).toHaveLength(2);
  });

  it('opens when something cannot be put back, and hands over what stays open', async () => {
    const { activities } = scriptedActivities(() => ({
      releaseSwitch: async () => {
        throw ApplicationFailure.nonRetryable('the provider is gone', STEP_ERRORS.checkFailed);
      },
    }));
    const end = await runMigration(activities, async (handle) => {
      await approve(handle);
      await until(handle, atGate('recovery'));
      await handle.executeUpdate('recover', { args: [{ by: 'erin', action: 'accept', reason: 'by hand' }] });
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'handed-over', summary: { openItems: ['not put back: deployments'] } });
  });

  it('never ends by itself when production cannot be read', async () => {
    const { activities } = scriptedActivities(() => ({
      upgradeProduction: async () => {
        throw ApplicationFailure.nonRetryable('broken', STEP_ERRORS.processFailed);
      },
      evaluateProduction: async () => {
        throw ApplicationFailure.nonRetryable('no answer', STEP_ERRORS.stateUnexpected);
      },
    }));
    await runMigration(activities, async (handle) => {
      await approve(handle);
      const status = await until(handle, atGate('recovery'));
      expect(status.actions).toEqual(['retry', 'accept']);
    });
  });
});

describe('a request', () => {
  it('is refused with every finding at once', async () => {
    const { world, activities } = scriptedActivities();
    const end = await runMigration(activities, endOf, { releaseTag: '', windowStart: 'soon', colour: 'red' } as never);
    expect(end.error).toBe('MigrationAborted');
    expect(end.summary?.findings).toHaveLength(4);
    expect(world.calls).toEqual([]);
  });
});

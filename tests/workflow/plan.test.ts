/** What a plan binds, and what voids approvals of it. */
import { ApplicationFailure } from '@temporalio/common';
import { describe, expect, it } from 'vitest';
import { STEP_ERRORS } from '../../src/contract/errors.ts';
import type { GraphEvidence } from '../../src/contract/evidence/tooling.ts';
import type { MigrationPlan } from '../../src/contract/plan.ts';
import { profile, scriptedActivities, trial } from './scripted-activities.ts';
import { atGate, endOf, runMigration, until } from './running.ts';

describe('a plan', () => {
  it('has the thresholds that the monitoring is judged by, besides the names of its checks', async () => {
    const plans: MigrationPlan[] = [];
    const measure = {
      name: 'latency',
      source: { kind: 'deadlocks' },
      limit: { ratio: 1.5, absolute: 20 },
      samples: 1,
    } as const;
    const { activities } = scriptedActivities(
      () => ({
        sealPlan: async ({ plan }) => {
          plans.push(plan);
          return { plan, digest: '1'.repeat(64), uri: 's3://evidence/plan' };
        },
      }),
      { monitoring: { ...profile.monitoring, measures: [measure] } },
    );
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.signal('abort', { by: 'erin@example.com', reason: 'seen' });
      await endOf(handle);
    });
    expect(plans[0]?.thresholds).toEqual([{ name: 'latency', ratio: 1.5, absolute: 20 }]);
  });

  it('is void when the tools are others by the time the window opens', async () => {
    const versions = ['1.13', '1.14', '1.14'];
    const plans: MigrationPlan[] = [];
    const { world, activities } = scriptedActivities(() => ({
      verifyTooling: async () => ({
        programs: { pg_restore: '18.1' },
        alembic: versions.shift() ?? '1.14',
        sqlalchemy: '2',
        python: '3.12',
        secretsResolved: 1,
      }),
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
      expect(status.refusals.last.at(-1)?.why).toContain('alembic is 1.14 on this worker, rehearsed was 1.13');
      await handle.executeUpdate('approve', { args: [{ ...first, planDigest: '2'.repeat(64) }] });
      expect(await endOf(handle)).toMatchObject({ outcome: 'succeeded' });
    });
    expect(plans.map(({ tools }) => tools['alembic'])).toEqual(['1.13', '1.14']);
    expect(plans[0]?.tools).toMatchObject({ pg_restore: '18.1', python: '3.12' });
    expect(world.calls.filter((call) => call === 'rehearseMigration')).toHaveLength(2);
  });

  it('for another database than the address leads to now ends the run before production is touched, equal objects or not', async () => {
    let looks = 0;
    const { world, activities } = scriptedActivities(() => {
      const known = scriptedActivities().activities;
      return {
        inspectProduction: async (input) => {
          const state = await known.inspectProduction(input);
          looks += 1;
          return looks === 1 ? state : { ...state, identity: { ...state.identity, systemIdentifier: 'a-clone' } };
        },
      };
    });
    const end = await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.signal('approve', { by: 'erin@example.com', planDigest: 'ab'.repeat(32) });
      return endOf(handle);
    });
    expect(end).toMatchObject({ outcome: 'aborted', summary: { openItems: [] } });
    expect(end.summary?.findings[0]).toContain('system identifier a-clone now');
    expect(world.calls).not.toContain('upgradeProduction');
  });

  it('after a rehearsal that saw a revision commit in its middle has more to say than its source: the upgrade and its evaluation go by that', async () => {
    const paths: GraphEvidence['path'][] = [];
    const plans: MigrationPlan[] = [];
    const { activities } = scriptedActivities((world) => ({
      rehearseMigration: async () => ({ ...trial(), commits: ['0002'] }),
      sealPlan: async ({ plan }) => {
        plans.push(plan);
        return { plan, digest: '1'.repeat(64), uri: 's3://evidence/plan' };
      },
      upgradeProduction: async (input) => {
        paths.push(input.graph.path);
        throw ApplicationFailure.nonRetryable('it failed', STEP_ERRORS.processFailed);
      },
      evaluateProduction: async (input) => {
        paths.push(input.graph.path);
        return {
          reality: world.reality,
          versionRows: ['0001'],
          objectMapDigest: 'before',
          differences: [],
          leftovers: [],
          droppedInvalidIndexes: [],
          endedSessions: 0,
        };
      },
    }));
    await runMigration(activities, async (handle) => {
      await until(handle, atGate('approval'));
      await handle.executeUpdate('approve', { args: [{ by: 'erin@example.com', planDigest: '1'.repeat(64) }] });
      await endOf(handle);
    });
    expect(plans[0]?.revisions).toMatchObject([{ revision: '0002', transactional: 'no' }]);
    expect(plans[0]?.warnings.join()).toContain('revision 0002 was seen to commit in its middle');
    expect(paths).toHaveLength(2);
    for (const path of paths) expect(path).toMatchObject([{ transactional: 'no', outsideTransaction: 'anything' }]);
  });
});

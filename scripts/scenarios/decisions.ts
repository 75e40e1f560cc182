/** Who decides at the gates: a person at the terminal, or `--yes` as a second person. */
import { createInterface } from 'node:readline/promises';
import type { WorkflowHandle } from '@temporalio/client';
import type { RecoveryAction } from '../../src/contract/messages.ts';
import type { Scenario } from './scenarios.ts';

export interface Deciders {
  atProduction(handle: WorkflowHandle, scenario: Scenario, planDigest: string): Promise<void>;
  atRecovery(
    handle: WorkflowHandle,
    scenario: Scenario,
    actions: readonly RecoveryAction[],
    why: string,
  ): Promise<void>;
}

const SECOND_PERSON = 'erin@example.com';

export const byScenario = (say: (line: string) => void): Deciders => ({
  atProduction: async (handle, scenario, planDigest) => {
    say(`gate production, plan ${planDigest}: ${SECOND_PERSON} does: ${scenario.atProduction}`);
    await atProduction(handle, scenario.atProduction, planDigest, `scenario ${scenario.name}`);
  },
  atRecovery: async (handle, scenario, actions, why) => {
    const action = scenario.recover.find((wanted) => actions.includes(wanted)) ?? 'accept';
    say(`gate recovery: ${why}; possible: ${actions.join(', ')}; ${SECOND_PERSON} chooses ${action}`);
    await handle.executeUpdate('recover', {
      args: [{ by: SECOND_PERSON, action, reason: `scenario ${scenario.name}` }],
    });
  },
});

export const atTerminal = (say: (line: string) => void): Deciders => ({
  atProduction: async (handle, scenario, planDigest) => {
    say(
      `The gate production is open: plan ${planDigest}. The scenario "${scenario.name}" wants: ${scenario.atProduction}.`,
    );
    const answer = await ask('approve, reject, abort, or nothing? ', [
      'approve',
      'reject',
      'abort',
      'nothing',
    ] as const);
    await atProduction(handle, answer, planDigest, 'decided at the terminal');
  },
  atRecovery: async (handle, _scenario, actions, why) => {
    say(`The gate recovery is open: ${why}`);
    const action = await ask(`${actions.join(', ')}? `, actions);
    await handle.executeUpdate('recover', { args: [{ by: SECOND_PERSON, action, reason: 'decided at the terminal' }] });
  },
});

async function atProduction(
  handle: WorkflowHandle,
  answer: Scenario['atProduction'],
  planDigest: string,
  reason: string,
): Promise<void> {
  switch (answer) {
    case 'approve':
      await handle.executeUpdate('approve', { args: [{ by: SECOND_PERSON, planDigest }] });
      return;
    case 'reject':
    case 'abort':
      await handle.executeUpdate(answer, { args: [{ by: SECOND_PERSON, reason }] });
      return;
    case 'nothing':
  }
}

async function ask<T extends string>(question: string, answers: readonly T[]): Promise<T> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    for (;;) {
      const answer = (await terminal.question(question)).trim();
      const chosen = answers.find((known) => known === answer || (answer.length > 0 && known.startsWith(answer)));
      if (chosen) return chosen;
    }
  } finally {
    terminal.close();
  }
}

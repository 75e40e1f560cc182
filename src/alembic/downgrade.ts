import { type AlembicCommandFacts, type AlembicCommandOptions, runAlembic } from './command.ts';
import type { DowngradeCommand } from './downgrade-plan.ts';

export interface DowngradeOptions extends AlembicCommandOptions {
  /** The plan, in order. */
  readonly commands: readonly Pick<DowngradeCommand, 'argument'>[];
  /**
   * Called after each command that ended with code 0, before the next begins: compare the version rows with the plan's
   * `rowsAfter` here, and throw to stop.
   */
  readonly afterCommand?: (index: number, facts: AlembicCommandFacts) => Promise<void>;
}

/**
 * Runs the planned downgrade commands, and none after one that failed. Tells how each command ended; reconcile with the
 * database whatever that is.
 * @throws what a handler threw, once the command is gone; the signal's reason; ProcessNotStarted
 */
export async function downgrade({
  commands,
  afterCommand,
  ...options
}: DowngradeOptions): Promise<readonly AlembicCommandFacts[]> {
  const done: AlembicCommandFacts[] = [];
  for (const [index, { argument }] of commands.entries()) {
    const facts = await runAlembic('downgrade', argument, options);
    done.push(facts);
    if (facts.result.kind !== 'exited' || facts.result.code !== 0) break;
    await afterCommand?.(index, facts);
  }
  return done;
}

import { type AlembicCommandFacts, type AlembicCommandOptions, runAlembic } from './command.ts';

export interface UpgradeOptions extends AlembicCommandOptions {
  /** The planned revision, never `head`: the release's head may have moved since it was planned. */
  readonly target: string;
}

/**
 * Runs the upgrade and tells how the command ended; reconcile with the database whatever that is.
 * @throws what a handler threw, once the command is gone; the signal's reason; ProcessNotStarted
 */
export function upgrade({ target, ...options }: UpgradeOptions): Promise<AlembicCommandFacts> {
  return runAlembic('upgrade', target, options);
}

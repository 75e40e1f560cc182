import { type Command, Option } from 'commander';

/** Commands that work by a service's profile, with the secrets it refers to resolved on the machine where they run. */
export const withProfiles = (command: Command): Command =>
  command.addOption(
    new Option('--profiles <folder>', 'profiles, one <service>.yaml per service, the same for workers and commands')
      .env('RUNBOOK_PROFILES')
      .default('config/services'),
  );

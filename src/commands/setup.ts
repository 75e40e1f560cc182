import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import type { Command } from 'commander';
import { SEARCH_ATTRIBUTE_NAMES } from '../contract/search-attributes.ts';
import type { TemporalAddress } from '../temporal-connection.ts';
import { missingSearchAttributes, registerSearchAttributes } from '../temporal-setup.ts';
import { CommandError } from './command-error.ts';
import { withClient, withConnectionOptions } from './connection.ts';
import type { CommandContext } from './context.ts';

export interface SetupResult {
  readonly registered: readonly string[];
  readonly present: readonly string[];
}

/** `temporal.api.enums.v1.IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD` */
const KEYWORD = 2;
/** Milliseconds until a registered name must be usable. */
const PATIENCE = 20_000;

/**
 * Registers the search attributes a run sets.
 *
 * @throws CommandError when one is there with another type: a run that sets it would stand still
 */
export async function setUpNamespace(client: Client): Promise<SetupResult> {
  const { namespace } = client.options;
  const { customAttributes } = await client.connection.operatorService.listSearchAttributes({ namespace });
  const present = SEARCH_ATTRIBUTE_NAMES.filter((name) => customAttributes?.[name] !== undefined);
  const wrong = present.filter((name) => customAttributes?.[name] !== KEYWORD);
  if (wrong.length > 0) {
    throw new CommandError(
      `${wrong.join(', ')} exist in the namespace ${namespace} with another type than Keyword: remove them with "temporal operator search-attribute remove" or use another namespace`,
    );
  }
  const registered = await registerSearchAttributes(client);
  await untilVisible(client);
  return { registered, present };
}

async function untilVisible(client: Client): Promise<void> {
  const until = Date.now() + PATIENCE;
  for (;;) {
    const missing = await missingSearchAttributes(client);
    if (missing.length === 0) return;
    if (Date.now() > until) throw new CommandError(`the server does not show ${missing.join(', ')} yet: try again`);
    await sleep(500);
  }
}

export function addSetup(program: Command, { output }: CommandContext): void {
  withConnectionOptions(program.command('setup'))
    .description('register the search attributes in the namespace; once, before the first worker')
    .addHelpText('after', '\nMay be run again: says what was there.\n\nExample:\n  runbook setup --namespace default')
    .action(async (options: TemporalAddress) => {
      await withClient(options, async (client) => {
        const { registered, present } = await setUpNamespace(client);
        const { namespace } = client.options;
        if (registered.length > 0) output.print(`registered in ${namespace}: ${registered.join(', ')}`);
        if (present.length > 0) output.print(`already in ${namespace}: ${present.join(', ')}`);
      });
    });
}

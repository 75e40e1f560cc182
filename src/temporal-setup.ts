import { type Client } from '@temporalio/client';
import { SEARCH_ATTRIBUTE_NAMES } from './contract/search-attributes.ts';

/** `temporal.api.enums.v1.IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD` */
const KEYWORD = 2;

export async function missingSearchAttributes(client: Client): Promise<readonly string[]> {
  const { customAttributes } = await client.connection.operatorService.listSearchAttributes({
    namespace: client.options.namespace,
  });
  return SEARCH_ATTRIBUTE_NAMES.filter((name) => !(name in (customAttributes ?? {})));
}

/** Registers what is missing. @returns the names that were registered */
export async function registerSearchAttributes(client: Client): Promise<readonly string[]> {
  const missing = await missingSearchAttributes(client);
  if (missing.length > 0) await addSearchAttributes(client, missing);
  return missing;
}

export async function addSearchAttributes(client: Client, names: readonly string[]): Promise<void> {
  await client.connection.operatorService.addSearchAttributes({
    namespace: client.options.namespace,
    searchAttributes: Object.fromEntries(names.map((name) => [name, KEYWORD])),
  });
}

export interface RelationName {
  readonly schema: string;
  readonly name: string;
}

/** One text for one relation, whatever quotes its name was written with. */
export const relationKey = ({ schema, name }: RelationName): string => JSON.stringify([schema, name]);

/**
 * Reads `schema.name` at the beginning of a text, as PostgreSQL or the ledger writes it: parts in double quotes where
 * needed, quotes inside doubled.
 * @throws Error when the text does not begin so
 */
export function parseQualifiedName(text: string): RelationName {
  const part = /(?:"(?<quoted>(?:[^"]|"")*)"|(?<plain>[^\s."()]+))/.source;
  const parts = new RegExp(`^${part}\\.${part.replaceAll('?<', '?<name_')}`).exec(text)?.groups;
  if (parts === undefined) throw new Error(`not a qualified name: ${text.slice(0, 80)}`);
  return {
    schema: parts['plain'] ?? parts['quoted']!.replaceAll('""', '"'),
    name: parts['name_plain'] ?? parts['name_quoted']!.replaceAll('""', '"'),
  };
}

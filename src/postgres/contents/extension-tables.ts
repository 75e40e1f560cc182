/**
 * Tables that an extension has made. CREATE EXTENSION makes them anew, so a backup holds none of their rows but those of
 * configuration tables, where users put rows of their own (`pg_extension_config_dump`), such as `part_config`.
 */
export type ExtensionTables = 'left-out' | 'configuration';

/** SQL: is the relation `c` wanted? */
export function isWantedSql(members: ExtensionTables): string {
  const isNoMember = `NOT EXISTS (SELECT FROM pg_depend d
                       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`;
  return members === 'left-out'
    ? isNoMember
    : `(${isNoMember} OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig)))`;
}

import {
  FIRST_USER_OID,
  notExtensionMember,
  RELATION,
  USER_RELATION,
  USER_SCHEMA,
  USER_TYPE,
} from './object-map-scope.ts';

/** Rows of an ACL: grantee, privilege, whether it may be granted on. */
const entriesOf = (acl: string): string => `(
  SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee, a.privilege_type AS privilege, a.is_grantable AS grantable
  FROM aclexplode(${acl}) a LEFT JOIN pg_roles r ON r.oid = a.grantee)`;

const PRIVILEGES = `string_agg(e.privilege || CASE WHEN e.grantable THEN '*' ELSE '' END, ', '
                               ORDER BY e.privilege COLLATE "C", e.grantable)`;

/** `grantee=PRIVILEGE, PRIVILEGE*; ...` sorted; `*` may be granted on. */
const grantsOf = (acl: string): string => `(
  SELECT coalesce(string_agg(g.entry, '; ' ORDER BY g.entry COLLATE "C"), 'nobody')
  FROM (SELECT e.grantee || '=' || ${PRIVILEGES} AS entry FROM ${entriesOf(acl)} e GROUP BY e.grantee) g)`;

/** What was granted (`+`) or revoked (`-`) since the object was made; NULL = nothing. */
const grantsSince = (base: string, acl: string): string => `(
  SELECT string_agg(g.entry, '; ' ORDER BY g.entry COLLATE "C")
  FROM (SELECT '+' || e.grantee || '=' || ${PRIVILEGES} AS entry
        FROM (SELECT * FROM ${entriesOf(acl)} x EXCEPT SELECT * FROM ${entriesOf(base)} y) e GROUP BY e.grantee
        UNION ALL
        SELECT '-' || e.grantee || '=' || ${PRIVILEGES}
        FROM (SELECT * FROM ${entriesOf(base)} x EXCEPT SELECT * FROM ${entriesOf(acl)} y) e GROUP BY e.grantee) g)`;

/** Every object that has an owner, and its ACL where its kind has one: type word, name parts, suffix, owner, ACL. */
const OWNED = `(
  SELECT 'schema' AS word, ARRAY[n.nspname::text] AS parts, '' AS suffix, n.nspowner AS owner,
         coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
  FROM pg_namespace n WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_namespace', 'n.oid')}
  UNION ALL
  SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized-view' ELSE 'table' END,
         ARRAY[n.nspname::text, c.relname::text], '', c.relowner,
         coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner))
  FROM ${RELATION} WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND ${USER_RELATION}
  UNION ALL
  SELECT 'function', ARRAY[n.nspname::text, p.proname::text], '(' || pg_get_function_identity_arguments(p.oid) || ')',
         p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_proc', 'p.oid')}
  UNION ALL
  SELECT 'type', ARRAY[n.nspname::text, t.typname::text], '', t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE ${USER_TYPE}
  UNION ALL
  SELECT 'language', ARRAY[l.lanname::text], '', l.lanowner, coalesce(l.lanacl, acldefault('l', l.lanowner))
  FROM pg_language l WHERE l.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_language', 'l.oid')}
  UNION ALL
  SELECT 'foreign-data-wrapper', ARRAY[w.fdwname::text], '', w.fdwowner, coalesce(w.fdwacl, acldefault('F', w.fdwowner))
  FROM pg_foreign_data_wrapper w WHERE ${notExtensionMember('pg_foreign_data_wrapper', 'w.oid')}
  UNION ALL
  SELECT 'foreign-server', ARRAY[s.srvname::text], '', s.srvowner, coalesce(s.srvacl, acldefault('S', s.srvowner))
  FROM pg_foreign_server s WHERE ${notExtensionMember('pg_foreign_server', 's.oid')}
  UNION ALL
  SELECT 'collation', ARRAY[n.nspname::text, l.collname::text], '', l.collowner, NULL
  FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_collation', 'l.oid')}
  UNION ALL
  SELECT 'operator', ARRAY[n.nspname::text, o.oprname::text],
         format('(%s, %s)', CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END, format_type(o.oprright, NULL)),
         o.oprowner, NULL
  FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE ${USER_SCHEMA} AND o.oprcode <> 0 AND ${notExtensionMember('pg_operator', 'o.oid')}
  UNION ALL
  SELECT 'operator-family', ARRAY[n.nspname::text, f.opfname::text], ' using ' || quote_ident(m.amname), f.opfowner, NULL
  FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_opfamily', 'f.oid')}
  UNION ALL
  SELECT 'operator-class', ARRAY[n.nspname::text, q.opcname::text], ' using ' || quote_ident(m.amname), q.opcowner, NULL
  FROM pg_opclass q JOIN pg_namespace n ON n.oid = q.opcnamespace JOIN pg_am m ON m.oid = q.opcmethod
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_opclass', 'q.oid')}
  UNION ALL
  SELECT 'conversion', ARRAY[n.nspname::text, v.conname::text], '', v.conowner, NULL
  FROM pg_conversion v JOIN pg_namespace n ON n.oid = v.connamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_conversion', 'v.oid')}
  UNION ALL
  SELECT 'text-search-dictionary', ARRAY[n.nspname::text, d.dictname::text], '', d.dictowner, NULL
  FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_dict', 'd.oid')}
  UNION ALL
  SELECT 'text-search-configuration', ARRAY[n.nspname::text, f.cfgname::text], '', f.cfgowner, NULL
  FROM pg_ts_config f JOIN pg_namespace n ON n.oid = f.cfgnamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_config', 'f.oid')}
  UNION ALL
  SELECT 'statistics', ARRAY[n.nspname::text, s.stxname::text], '', s.stxowner, NULL
  FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
  WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_statistic_ext', 's.oid')}
  UNION ALL
  SELECT 'event-trigger', ARRAY[e.evtname::text], '', e.evtowner, NULL
  FROM pg_event_trigger e WHERE ${notExtensionMember('pg_event_trigger', 'e.oid')}
  UNION ALL
  SELECT 'publication', ARRAY[p.pubname::text], '', p.pubowner, NULL
  FROM pg_publication p WHERE ${notExtensionMember('pg_publication', 'p.oid')}
) o`;

/** Objects that the server or an extension brought along: what they are is not the user's doing, who may use them can be. */
const BROUGHT_ALONG = `(
  SELECT 'relation' AS word, ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, 'pg_class'::regclass AS class, c.oid,
         c.relacl AS acl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner) AS at_first
  FROM ${RELATION} WHERE c.relacl IS NOT NULL AND NOT (${USER_RELATION}) AND n.nspname !~ '^pg_(toast|temp)'
    AND n.nspname <> 'information_schema'
  UNION ALL
  SELECT 'function', ARRAY[n.nspname::text, p.proname::text], '(' || pg_get_function_identity_arguments(p.oid) || ')',
         'pg_proc'::regclass, p.oid, p.proacl, acldefault('f', p.proowner)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.proacl IS NOT NULL AND NOT (${USER_SCHEMA} AND ${notExtensionMember('pg_proc', 'p.oid')})
  UNION ALL
  SELECT 'language', ARRAY[l.lanname::text], '', 'pg_language'::regclass, l.oid, l.lanacl, acldefault('l', l.lanowner)
  FROM pg_language l
  WHERE l.lanacl IS NOT NULL AND NOT (l.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_language', 'l.oid')})
  UNION ALL
  SELECT 'foreign-data-wrapper', ARRAY[w.fdwname::text], '', 'pg_foreign_data_wrapper'::regclass, w.oid, w.fdwacl,
         acldefault('F', w.fdwowner)
  FROM pg_foreign_data_wrapper w WHERE w.fdwacl IS NOT NULL AND NOT ${notExtensionMember('pg_foreign_data_wrapper', 'w.oid')}
) b LEFT JOIN pg_init_privs i ON i.classoid = b.class AND i.objoid = b.oid AND i.objsubid = 0`;

/** The part of `OBJECT_QUERIES` that tells who owns and who may do what. */
export const RIGHTS_QUERIES = {
  ownership: `
    SELECT o.parts, o.suffix, quote_ident(pg_get_userbyid(o.owner)) AS definition, o.word FROM ${OWNED}`,

  grants: `
    SELECT o.parts, o.suffix, ${grantsOf('o.acl')} AS definition, o.word FROM ${OWNED} WHERE o.acl IS NOT NULL
    UNION ALL
    SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text], '', ${grantsOf('a.attacl')}, 'column'
    FROM ${RELATION} JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped AND ${USER_RELATION}
    UNION ALL
    SELECT d.parts, d.suffix, d.definition, d.word
    FROM (SELECT b.word, b.parts, b.suffix, ${grantsSince('coalesce(i.initprivs, b.at_first)', 'b.acl')} AS definition
          FROM ${BROUGHT_ALONG}) d
    WHERE d.definition IS NOT NULL`,

  'default-privileges': `
    SELECT ARRAY[pg_get_userbyid(d.defaclrole)::text] || coalesce(n.nspname::text, '*') AS parts,
           ' ' || d.defaclobjtype::text AS suffix, ${grantsOf('d.defaclacl')} AS definition
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace`,
} as const;

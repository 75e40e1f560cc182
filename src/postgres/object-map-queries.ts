/**
 * One query a kind of object. Each answers rows of `parts` (the name, in parts), `suffix` (what is written behind it, such
 * as a function's argument types) and `definition`. Text comes from PostgreSQL's own deparser under a pinned search_path.
 *
 * Left out everywhere: system schemas, members of extensions, temporary objects. No OIDs, no physical order of columns, no
 * statistics, no data. Tried on PostgreSQL 18; uses no catalog column younger than 14 except through `to_jsonb`.
 */
const USER_SCHEMA = `n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`;

const notExtensionMember = (catalog: string, oid: string): string =>
  `NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '${catalog}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`;

const RELATION = `pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace`;
const USER_RELATION = `${USER_SCHEMA} AND c.relpersistence <> 't' AND ${notExtensionMember('pg_class', 'c.oid')}`;

/** `grantee=PRIVILEGE, PRIVILEGE*; ...` sorted; `*` may be granted on. A NULL ACL means the built-in default. */
const grantsOf = (acl: string): string => `(
  SELECT coalesce(string_agg(g.entry, '; ' ORDER BY g.entry COLLATE "C"), 'nobody')
  FROM (SELECT coalesce(quote_ident(r.rolname), 'PUBLIC') || '='
               || string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ', '
                             ORDER BY a.privilege_type COLLATE "C", a.is_grantable) AS entry
        FROM (SELECT DISTINCT grantee, privilege_type, is_grantable FROM aclexplode(${acl})) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
        GROUP BY r.rolname) g)`;

/** Every object that has an owner and an ACL: type word, name parts, suffix, owner, ACL. */
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
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
  WHERE ${USER_SCHEMA} AND t.typtype IN ('e', 'c', 'd', 'r') AND coalesce(c.relkind, 'c') = 'c'
    AND ${notExtensionMember('pg_type', 't.oid')}
) o`;

export const OBJECT_QUERIES = {
  schema: `
    SELECT ARRAY[n.nspname::text] AS parts, '' AS suffix, 'schema' AS definition
    FROM pg_namespace n WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_namespace', 'n.oid')}`,

  extension: `
    SELECT ARRAY[e.extname::text] AS parts, '' AS suffix,
           format('schema %I version %s', n.nspname, e.extversion) AS definition
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql'`,

  type: `
    SELECT ARRAY[n.nspname::text, t.typname::text] AS parts, '' AS suffix,
      CASE t.typtype
      WHEN 'e' THEN (SELECT 'enum (' || string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) || ')'
                     FROM pg_enum e WHERE e.enumtypid = t.oid)
      WHEN 'c' THEN (SELECT 'composite (' || coalesce(string_agg(
                       quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum), '') || ')'
                     FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
      WHEN 'd' THEN concat_ws(' ', 'domain ' || format_type(t.typbasetype, t.typtypmod),
                     CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
                     (SELECT string_agg('CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), ' '
                                        ORDER BY k.conname COLLATE "C")
                      FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
      ELSE (SELECT 'range (' || format_type(r.rngsubtype, NULL) || ', ' || r.rngsubdiff::text || ')'
            FROM pg_range r WHERE r.rngtypid = t.oid)
      END AS definition
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE ${USER_SCHEMA} AND t.typtype IN ('e', 'c', 'd', 'r') AND coalesce(c.relkind, 'c') = 'c'
      AND ${notExtensionMember('pg_type', 't.oid')}`,

  table: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ',
      CASE c.relkind WHEN 'f' THEN 'foreign' WHEN 'p' THEN 'partitioned by ' || pg_get_partkeydef(c.oid) ELSE 'ordinary' END,
      CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
      (SELECT CASE WHEN c.relispartition THEN 'partition of ' ELSE 'inherits ' END
              || string_agg(format('%I.%I', pn.nspname, p.relname), ', ' ORDER BY i.inhseqno)
       FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
       WHERE i.inhrelid = c.oid),
      pg_get_expr(c.relpartbound, c.oid),
      'using ' || nullif((SELECT am.amname FROM pg_am am WHERE am.oid = c.relam), 'heap'),
      CASE WHEN c.relrowsecurity THEN 'row security' END,
      CASE WHEN c.relforcerowsecurity THEN 'forced row security' END,
      CASE c.relreplident WHEN 'n' THEN 'replica identity nothing' WHEN 'f' THEN 'replica identity full'
                          WHEN 'i' THEN 'replica identity index' END,
      (SELECT 'of type ' || format_type(c.reloftype, NULL) WHERE c.reloftype <> 0),
      (SELECT 'with (' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM unnest(c.reloptions) o),
      (SELECT format('server %I options %s', s.srvname, coalesce(f.ftoptions::text, ''))
       FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid)) AS definition
    FROM ${RELATION} WHERE c.relkind IN ('r', 'p', 'f') AND ${USER_RELATION}`,

  column: `
    SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text] AS parts, '' AS suffix, concat_ws(' ',
      format_type(a.atttypid, a.atttypmod),
      (SELECT format('COLLATE %I.%I', cn.nspname, l.collname) FROM pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace
       WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation),
      CASE WHEN a.attnotnull THEN 'NOT NULL' END,
      CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
      CASE a.attgenerated WHEN '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                          WHEN 's' THEN 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED'
                          ELSE 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') VIRTUAL' END,
      CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
      CASE WHEN a.attcompression <> '' THEN 'COMPRESSION ' || a.attcompression::text END,
      (SELECT 'OPTIONS ' || string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(a.attfdwoptions) o)) AS definition
    FROM ${RELATION} JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND ${USER_RELATION}`,

  index: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_indexdef(c.oid),
      CASE WHEN i.indisclustered THEN 'CLUSTERED' END, CASE WHEN i.indisreplident THEN 'REPLICA IDENTITY' END) AS definition
    FROM ${RELATION} JOIN pg_index i ON i.indexrelid = c.oid
    WHERE i.indisvalid AND i.indisready AND i.indislive AND ${USER_RELATION}
      AND ${notExtensionMember('pg_class', 'i.indrelid')}`,

  // PostgreSQL 18 lists NOT NULL here too; the column says it already. Foreign keys that partitions inherit get made-up names.
  constraint: `
    SELECT ARRAY[n.nspname::text, c.relname::text, k.conname::text] AS parts, '' AS suffix,
           pg_get_constraintdef(k.oid) AS definition
    FROM ${RELATION} JOIN pg_constraint k ON k.conrelid = c.oid
    WHERE (k.contype <> 'n' OR NOT k.convalidated) AND NOT (k.contype = 'f' AND k.conparentid <> 0)
      AND k.contype <> 't' AND ${USER_RELATION}`,

  sequence: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ',
      format('%s start %s increment %s min %s max %s cache %s', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement,
             s.seqmin, s.seqmax, s.seqcache),
      CASE WHEN s.seqcycle THEN 'cycle' END, CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
      (SELECT format('owned by %I.%I.%I', tn.nspname, t.relname, a.attname)
       FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
       JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
         AND d.deptype IN ('a', 'i'))) AS definition
    FROM ${RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid WHERE ${USER_RELATION}`,

  view: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_viewdef(c.oid),
      (SELECT 'with (' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM unnest(c.reloptions) o)) AS definition
    FROM ${RELATION} WHERE c.relkind = 'v' AND ${USER_RELATION}`,

  'materialized-view': `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, pg_get_viewdef(c.oid) AS definition
    FROM ${RELATION} WHERE c.relkind = 'm' AND ${USER_RELATION}`,

  rule: `
    SELECT ARRAY[n.nspname::text, c.relname::text, w.rulename::text] AS parts, '' AS suffix, pg_get_ruledef(w.oid) AS definition
    FROM ${RELATION} JOIN pg_rewrite w ON w.ev_class = c.oid WHERE w.rulename <> '_RETURN' AND ${USER_RELATION}`,

  function: `
    SELECT ARRAY[n.nspname::text, p.proname::text] AS parts,
           '(' || pg_get_function_identity_arguments(p.oid) || ')' AS suffix,
           CASE WHEN p.prokind = 'a' THEN
             (SELECT format('aggregate sfunc %s stype %s final %s init %s', a.aggtransfn, format_type(a.aggtranstype, NULL),
                            a.aggfinalfn, coalesce(quote_literal(a.agginitval), 'none'))
              FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
           ELSE pg_get_functiondef(p.oid) END AS definition
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_proc', 'p.oid')}
      -- the constructors of a range type come with the type
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')`,

  trigger: `
    SELECT ARRAY[n.nspname::text, c.relname::text, g.tgname::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_triggerdef(g.oid),
      CASE g.tgenabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END) AS definition
    FROM ${RELATION} JOIN pg_trigger g ON g.tgrelid = c.oid
    WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND ${USER_RELATION}`,

  'event-trigger': `
    SELECT ARRAY[e.evtname::text] AS parts, '' AS suffix,
           format('on %s execute %s tags %s enabled %s', e.evtevent, e.evtfoid::regprocedure, e.evttags::text, e.evtenabled) AS definition
    FROM pg_event_trigger e WHERE ${notExtensionMember('pg_event_trigger', 'e.oid')}`,

  policy: `
    SELECT ARRAY[n.nspname::text, c.relname::text, p.polname::text] AS parts, '' AS suffix, concat_ws(' ',
      CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for ' || p.polcmd::text,
      'to ' || (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', '
                                  ORDER BY pg_get_userbyid(r) COLLATE "C") FROM unnest(p.polroles) r),
      'using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
      'with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS definition
    FROM ${RELATION} JOIN pg_policy p ON p.polrelid = c.oid WHERE ${USER_RELATION}`,

  statistics: `
    SELECT ARRAY[n.nspname::text, s.stxname::text] AS parts, '' AS suffix, pg_get_statisticsobjdef(s.oid) AS definition
    FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_statistic_ext', 's.oid')}`,

  publication: `
    SELECT ARRAY[p.pubname::text] AS parts, '' AS suffix, concat_ws(' ',
      CASE WHEN p.puballtables THEN 'all tables' END, CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
      CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END, CASE WHEN p.pubviaroot THEN 'via root' END,
      (SELECT 'tables ' || string_agg(format('%I.%I', t.schemaname, t.tablename), ', ' ORDER BY t.schemaname COLLATE "C", t.tablename COLLATE "C")
       FROM pg_publication_tables t WHERE t.pubname = p.pubname)) AS definition
    FROM pg_publication p`,

  comment: `
    SELECT ARRAY[]::text[] AS parts, i.type || ' ' || i.identity AS suffix, d.description AS definition
    FROM pg_description d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.objoid >= 16384 AND coalesce(i.schema, '') !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = d.classoid AND x.objid = d.objoid AND x.deptype = 'e')`,

  ownership: `
    SELECT o.parts, o.suffix, quote_ident(pg_get_userbyid(o.owner)) AS definition, o.word FROM ${OWNED}`,

  grants: `
    SELECT o.parts, o.suffix, ${grantsOf('o.acl')} AS definition, o.word FROM ${OWNED}
    UNION ALL
    SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text], '', ${grantsOf('a.attacl')}, 'column'
    FROM ${RELATION} JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attacl IS NOT NULL AND a.attnum > 0 AND NOT a.attisdropped AND ${USER_RELATION}`,

  'default-privileges': `
    SELECT ARRAY[pg_get_userbyid(d.defaclrole)::text] || coalesce(n.nspname::text, '*') AS parts,
           ' ' || d.defaclobjtype::text AS suffix, ${grantsOf('d.defaclacl')} AS definition
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace`,
} as const;

export type ObjectKind = keyof typeof OBJECT_QUERIES;

import {
  FIRST_USER_OID,
  hashedOptions,
  notExtensionMember,
  RELATION,
  USER_RELATION,
  USER_SCHEMA,
  USER_TYPE,
} from './object-map-scope.ts';
import { RARE_QUERIES } from './object-map-rare-queries.ts';
import { RIGHTS_QUERIES } from './object-map-rights-queries.ts';

/**
 * One query a kind of object. Each answers rows of `parts` (the name, in parts), `suffix` (what is written behind it, such
 * as a function's argument types) and `definition`. Text comes from PostgreSQL's own deparser under a pinned search_path.
 *
 * Left out everywhere: system schemas, members of extensions, temporary objects. No OIDs, no physical order of columns, no
 * statistics, no data, no value that may be a secret; nothing that only superusers may read, for the map must not depend on
 * who reads it. Tried on PostgreSQL 14 to 18; uses no catalog column younger than 14 except through `to_jsonb`.
 */
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
                     (SELECT format('COLLATE %I.%I', ln.nspname, l.collname) FROM pg_collation l JOIN pg_namespace ln ON ln.oid = l.collnamespace
                      JOIN pg_type bt ON bt.oid = t.typbasetype WHERE l.oid = t.typcollation AND t.typcollation <> bt.typcollation),
                     CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
                     (SELECT string_agg('CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), ' '
                                        ORDER BY k.conname COLLATE "C")
                      FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
      WHEN 'r' THEN (SELECT concat_ws(' ', 'range (' || format_type(r.rngsubtype, NULL) || ', ' || r.rngsubdiff::text || ')',
                       nullif('canonical ' || r.rngcanonical::text, 'canonical -'),
                       (SELECT format('opclass %I.%I', qn.nspname, q.opcname) FROM pg_opclass q JOIN pg_namespace qn ON qn.oid = q.opcnamespace
                        WHERE q.oid = r.rngsubopc AND NOT q.opcdefault),
                       (SELECT format('COLLATE %I.%I', ln.nspname, l.collname) FROM pg_collation l JOIN pg_namespace ln ON ln.oid = l.collnamespace
                        WHERE l.oid = r.rngcollation AND l.collname <> 'default'))
                     FROM pg_range r WHERE r.rngtypid = t.oid)
      ELSE format('base (input %s, output %s, receive %s, send %s, typmod %s %s, analyze %s, length %s, by value %s, align %s, storage %s, category %s %s, delimiter %s, element %s, default %s)',
                  t.typinput::oid::regprocedure, t.typoutput::oid::regprocedure, t.typreceive, t.typsend, t.typmodin, t.typmodout,
                  t.typanalyze, t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred, t.typdelim,
                  t.typelem::regtype, t.typdefault)
      END AS definition
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE ${USER_TYPE}`,

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
      (SELECT 'toast with (' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM pg_class ct, unnest(ct.reloptions) o
       WHERE ct.oid = c.reltoastrelid),
      (SELECT concat_ws(' ', format('server %I', s.srvname), 'options ' || ${hashedOptions('f.ftoptions')})
       FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid)) AS definition
    FROM ${RELATION} WHERE c.relkind IN ('r', 'p', 'f') AND ${USER_RELATION}`,

  column: `
    SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text] AS parts, '' AS suffix, concat_ws(' ',
      format_type(a.atttypid, a.atttypmod),
      (SELECT format('COLLATE %I.%I', cn.nspname, l.collname) FROM pg_collation l JOIN pg_namespace cn ON cn.oid = l.collnamespace
       WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation),
      CASE WHEN a.attnotnull THEN 'NOT NULL' END,
      (SELECT 'NO INHERIT' FROM pg_constraint k
       WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND k.connoinherit),
      -- Of a partition it only tells how it became one.
      CASE WHEN NOT a.attislocal AND NOT c.relispartition THEN 'inherited' END,
      CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
      CASE a.attgenerated WHEN '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                          WHEN 's' THEN 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED'
                          ELSE 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') VIRTUAL' END,
      CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
      CASE WHEN a.attcompression <> '' THEN 'COMPRESSION ' || a.attcompression::text END,
      'STATISTICS ' || nullif(a.attstattarget, -1)::text,
      (SELECT 'with (' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM unnest(a.attoptions) o),
      'OPTIONS ' || ${hashedOptions('a.attfdwoptions')}) AS definition
    FROM ${RELATION} JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE (c.relkind IN ('r', 'p', 'f') OR (c.relkind = 'v' AND a.atthasdef))
      AND a.attnum > 0 AND NOT a.attisdropped AND ${USER_RELATION}`,

  index: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_indexdef(c.oid),
      CASE WHEN i.indisclustered THEN 'CLUSTERED' END, CASE WHEN i.indisreplident THEN 'REPLICA IDENTITY' END,
      (SELECT format('PART OF %I.%I', pn.nspname, p.relname)
       FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
       WHERE h.inhrelid = c.oid),
      (SELECT 'STATISTICS ' || string_agg(a.attnum || ' = ' || a.attstattarget, ', ' ORDER BY a.attnum)
       FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attstattarget >= 0)) AS definition
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
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_viewdef(c.oid),
      CASE WHEN NOT c.relispopulated THEN 'not populated' END,
      'using ' || nullif((SELECT am.amname FROM pg_am am WHERE am.oid = c.relam), 'heap'),
      (SELECT 'with (' || string_agg(o, ', ' ORDER BY o COLLATE "C") || ')' FROM unnest(c.reloptions) o)) AS definition
    FROM ${RELATION} WHERE c.relkind = 'm' AND ${USER_RELATION}`,

  rule: `
    SELECT ARRAY[n.nspname::text, c.relname::text, w.rulename::text] AS parts, '' AS suffix, concat_ws(' ', pg_get_ruledef(w.oid),
      CASE w.ev_enabled WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' END) AS definition
    FROM ${RELATION} JOIN pg_rewrite w ON w.ev_class = c.oid WHERE w.rulename <> '_RETURN' AND ${USER_RELATION}`,

  function: `
    SELECT ARRAY[n.nspname::text, p.proname::text] AS parts,
           '(' || pg_get_function_identity_arguments(p.oid) || ')' AS suffix,
           CASE WHEN p.prokind = 'a' THEN
             (SELECT concat_ws(' ', format('aggregate sfunc %s stype %s final %s init %s', a.aggtransfn,
                                          format_type(a.aggtranstype, NULL), a.aggfinalfn, coalesce(quote_literal(a.agginitval), 'none')),
                               nullif('kind ' || a.aggkind::text, 'kind n'), 'returns ' || format_type(p.prorettype, NULL),
                               nullif('combine ' || a.aggcombinefn::text, 'combine -'), nullif('serial ' || a.aggserialfn::text, 'serial -'),
                               nullif('deserial ' || a.aggdeserialfn::text, 'deserial -'), nullif('moving ' || a.aggmtransfn::text, 'moving -'),
                               nullif('inverse ' || a.aggminvtransfn::text, 'inverse -'), nullif('moving final ' || a.aggmfinalfn::text, 'moving final -'),
                               nullif('moving type ' || a.aggmtranstype::regtype::text, 'moving type -'), 'moving init ' || quote_literal(a.aggminitval),
                               CASE WHEN a.aggsortop <> 0 THEN 'sort ' || a.aggsortop::regoperator::text END,
                               CASE WHEN a.aggfinalextra THEN 'final extra' END, nullif('final modify ' || a.aggfinalmodify::text, 'final modify r'),
                               nullif('parallel ' || p.proparallel::text, 'parallel u'))
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
    SELECT ARRAY[n.nspname::text, s.stxname::text] AS parts, '' AS suffix,
           concat_ws(' ', pg_get_statisticsobjdef(s.oid), 'STATISTICS ' || nullif(s.stxstattarget, -1)::text) AS definition
    FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_statistic_ext', 's.oid')}`,

  publication: `
    SELECT ARRAY[p.pubname::text] AS parts, '' AS suffix, concat_ws(' ',
      CASE WHEN p.puballtables THEN 'all tables' END, CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
      CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END, CASE WHEN p.pubviaroot THEN 'via root' END,
      nullif('generated columns ' || (to_jsonb(p)->>'pubgencols'), 'generated columns n'),
      (SELECT 'tables ' || string_agg(concat_ws(' ', format('%I.%I', n.nspname, c.relname),
                (SELECT '(' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C") || ')'
                 FROM pg_attribute a WHERE a.attrelid = c.oid AND to_jsonb(r)->'prattrs' @> to_jsonb(a.attnum)),
                (SELECT 'where ' || (to_jsonb(t)->>'rowfilter') FROM pg_publication_tables t
                 WHERE t.pubname = p.pubname AND t.schemaname = n.nspname AND t.tablename = c.relname)),
              ', ' ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C")
       FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE r.prpubid = p.oid)) AS definition
    FROM pg_publication p WHERE ${notExtensionMember('pg_publication', 'p.oid')}`,

  'publication-schema': `
    SELECT ARRAY[p.pubname::text, n.nspname::text] AS parts, '' AS suffix, 'tables in schema' AS definition
    FROM pg_publication_namespace s JOIN pg_publication p ON p.oid = s.pnpubid JOIN pg_namespace n ON n.oid = s.pnnspid`,

  subscription: `
    SELECT ARRAY[s.subname::text] AS parts, '' AS suffix,
           format('publications %s slot %s%s', s.subpublications::text, coalesce(s.subslotname, 'none'),
                  CASE WHEN NOT s.subenabled THEN ' disabled' ELSE '' END) AS definition
    FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()`,

  comment: `
    SELECT ARRAY[]::text[] AS parts, i.type || ' ' || i.identity AS suffix, d.description AS definition
    FROM pg_description d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE d.classoid <> 'pg_largeobject'::regclass
      AND ((d.objoid >= ${FIRST_USER_OID} AND coalesce(i.schema, '') !~ '^pg_'
            AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = d.classoid AND x.objid = d.objoid AND x.deptype = 'e'))
           -- no dump carries it before PostgreSQL 15
           OR (d.classoid = 'pg_namespace'::regclass AND d.objoid = to_regnamespace('public')
               AND current_setting('server_version_num')::int >= 150000 AND d.description <> 'standard public schema'))`,

  ...RARE_QUERIES,
  ...RIGHTS_QUERIES,
} as const;

export type ObjectKind = keyof typeof OBJECT_QUERIES;

/** Kinds that an older server has no catalog for: the first major version that has. */
export const SINCE: Partial<Record<ObjectKind, number>> = { 'publication-schema': 15 };

/**
 * What may differ without any difference in meaning: recorded, but no part of the digest. Rows of kind, name in parts, and
 * text.
 */
export const COSMETIC_QUERIES = {
  'column-order': `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix,
           string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS definition
    FROM ${RELATION} JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND ${USER_RELATION}
    GROUP BY n.nspname, c.relname`,

  // PostgreSQL 18 gives them names, its own ones where the user gave none.
  'not-null-name': `
    SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text] AS parts, '' AS suffix, k.conname::text AS definition
    FROM ${RELATION} JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'n'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
    WHERE k.convalidated AND ${USER_RELATION}`,

  // Foreign keys that partitions inherit.
  'inherited-constraint-name': `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, ' ' || pg_get_constraintdef(k.oid) AS suffix,
           string_agg(k.conname::text, ', ' ORDER BY k.conname COLLATE "C") AS definition
    FROM ${RELATION} JOIN pg_constraint k ON k.conrelid = c.oid
    WHERE k.contype = 'f' AND k.conparentid <> 0 AND ${USER_RELATION}
    GROUP BY n.nspname, c.relname, pg_get_constraintdef(k.oid)`,
} as const;

export type CosmeticKind = keyof typeof COSMETIC_QUERIES;

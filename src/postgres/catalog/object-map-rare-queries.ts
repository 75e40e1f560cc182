import {
  FIRST_USER_OID,
  hashedOptions,
  notExtensionMember,
  RELATION,
  USER_RELATION,
  USER_SCHEMA,
} from './object-map-scope.ts';

/** The part of `OBJECT_QUERIES` that few services have. */
export const RARE_QUERIES = {
  collation: `
    SELECT ARRAY[n.nspname::text, l.collname::text] AS parts, '' AS suffix, concat_ws(' ',
      'provider ' || l.collprovider::text, 'encoding ' || nullif(pg_encoding_to_char(l.collencoding), ''),
      'collate ' || l.collcollate, 'ctype ' || l.collctype,
      'locale ' || coalesce(to_jsonb(l)->>'colllocale', to_jsonb(l)->>'colliculocale'), 'rules ' || (to_jsonb(l)->>'collicurules'),
      CASE WHEN NOT l.collisdeterministic THEN 'nondeterministic' END) AS definition
    FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_collation', 'l.oid')}`,

  operator: `
    SELECT ARRAY[n.nspname::text, o.oprname::text] AS parts,
           format('(%s, %s)', CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END, format_type(o.oprright, NULL)) AS suffix,
           concat_ws(' ', o.oprcode::oid::regprocedure::text, 'returns ' || format_type(o.oprresult, NULL),
             CASE WHEN o.oprcom <> 0 THEN 'commutator ' || o.oprcom::regoperator::text END,
             CASE WHEN o.oprnegate <> 0 THEN 'negator ' || o.oprnegate::regoperator::text END,
             nullif('restrict ' || o.oprrest::text, 'restrict -'), nullif('join ' || o.oprjoin::text, 'join -'),
             CASE WHEN o.oprcanmerge THEN 'merges' END, CASE WHEN o.oprcanhash THEN 'hashes' END) AS definition
    FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE ${USER_SCHEMA} AND o.oprcode <> 0 AND ${notExtensionMember('pg_operator', 'o.oid')}`,

  'operator-family': `
    SELECT ARRAY[n.nspname::text, f.opfname::text] AS parts, ' using ' || quote_ident(m.amname) AS suffix, concat_ws('; ',
      (SELECT string_agg(format('operator %s %s%s', a.amopstrategy, a.amopopr::regoperator,
                                CASE WHEN a.amoppurpose = 'o' THEN ' for order by' ELSE '' END), '; '
                         ORDER BY a.amopstrategy, a.amopopr::regoperator::text COLLATE "C")
       FROM pg_amop a WHERE a.amopfamily = f.oid),
      (SELECT string_agg(format('function %s (%s, %s) %s', p.amprocnum, p.amproclefttype::regtype, p.amprocrighttype::regtype,
                                p.amproc::oid::regprocedure), '; '
                         ORDER BY p.amprocnum, p.amproclefttype::regtype::text COLLATE "C", p.amprocrighttype::regtype::text COLLATE "C")
       FROM pg_amproc p WHERE p.amprocfamily = f.oid)) AS definition
    FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_opfamily', 'f.oid')}`,

  'operator-class': `
    SELECT ARRAY[n.nspname::text, q.opcname::text] AS parts, ' using ' || quote_ident(m.amname) AS suffix, concat_ws(' ',
      CASE WHEN q.opcdefault THEN 'default' END, 'for type ' || q.opcintype::regtype::text,
      format('family %I.%I', fn.nspname, f.opfname),
      CASE WHEN q.opckeytype <> 0 THEN 'storage ' || q.opckeytype::regtype::text END) AS definition
    FROM pg_opclass q JOIN pg_namespace n ON n.oid = q.opcnamespace JOIN pg_am m ON m.oid = q.opcmethod
    JOIN pg_opfamily f ON f.oid = q.opcfamily JOIN pg_namespace fn ON fn.oid = f.opfnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_opclass', 'q.oid')}`,

  cast: `
    SELECT ARRAY[]::text[] AS parts, format('%s as %s', k.castsource::regtype, k.casttarget::regtype) AS suffix,
           format('method %s context %s%s', k.castmethod, k.castcontext,
                  CASE WHEN k.castfunc <> 0 THEN ' function ' || k.castfunc::regprocedure::text ELSE '' END) AS definition
    FROM pg_cast k WHERE k.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_cast', 'k.oid')}
      -- those of a range type come with the type
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'i')`,

  'text-search-parser': `
    SELECT ARRAY[n.nspname::text, p.prsname::text] AS parts, '' AS suffix,
           format('start %s token %s end %s headline %s lextypes %s', p.prsstart, p.prstoken, p.prsend, p.prsheadline, p.prslextype) AS definition
    FROM pg_ts_parser p JOIN pg_namespace n ON n.oid = p.prsnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_parser', 'p.oid')}`,

  'text-search-template': `
    SELECT ARRAY[n.nspname::text, t.tmplname::text] AS parts, '' AS suffix,
           format('init %s lexize %s', t.tmplinit, t.tmpllexize) AS definition
    FROM pg_ts_template t JOIN pg_namespace n ON n.oid = t.tmplnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_template', 't.oid')}`,

  'text-search-dictionary': `
    SELECT ARRAY[n.nspname::text, d.dictname::text] AS parts, '' AS suffix,
           concat_ws(' ', format('template %I.%I', tn.nspname, t.tmplname), d.dictinitoption) AS definition
    FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace
    JOIN pg_ts_template t ON t.oid = d.dicttemplate JOIN pg_namespace tn ON tn.oid = t.tmplnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_dict', 'd.oid')}`,

  'text-search-configuration': `
    SELECT ARRAY[n.nspname::text, f.cfgname::text] AS parts, '' AS suffix,
      concat_ws('; ', format('parser %I.%I', pn.nspname, p.prsname),
        (SELECT string_agg(t.alias || ' with ' || t.dictionaries, '; ' ORDER BY t.alias COLLATE "C")
         FROM (SELECT y.alias, string_agg(m.mapdict::regdictionary::text, ', ' ORDER BY m.mapseqno) AS dictionaries
               FROM pg_ts_config_map m JOIN ts_token_type(f.cfgparser) y ON y.tokid = m.maptokentype
               WHERE m.mapcfg = f.oid GROUP BY y.alias) t)) AS definition
    FROM pg_ts_config f JOIN pg_namespace n ON n.oid = f.cfgnamespace
    JOIN pg_ts_parser p ON p.oid = f.cfgparser JOIN pg_namespace pn ON pn.oid = p.prsnamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_ts_config', 'f.oid')}`,

  conversion: `
    SELECT ARRAY[n.nspname::text, v.conname::text] AS parts, '' AS suffix,
           format('%sfor %s to %s from %s', CASE WHEN v.condefault THEN 'default ' ELSE '' END,
                  pg_encoding_to_char(v.conforencoding), pg_encoding_to_char(v.contoencoding), v.conproc) AS definition
    FROM pg_conversion v JOIN pg_namespace n ON n.oid = v.connamespace
    WHERE ${USER_SCHEMA} AND ${notExtensionMember('pg_conversion', 'v.oid')}`,

  language: `
    SELECT ARRAY[l.lanname::text] AS parts, '' AS suffix,
           format('%shandler %s inline %s validator %s', CASE WHEN l.lanpltrusted THEN 'trusted ' ELSE '' END,
                  l.lanplcallfoid::regproc, l.laninline::regproc, l.lanvalidator::regproc) AS definition
    FROM pg_language l WHERE l.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_language', 'l.oid')}`,

  transform: `
    SELECT ARRAY[]::text[] AS parts, format('for %s language %I', f.trftype::regtype, l.lanname) AS suffix,
           format('from sql %s to sql %s', f.trffromsql, f.trftosql) AS definition
    FROM pg_transform f JOIN pg_language l ON l.oid = f.trflang
    WHERE f.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_transform', 'f.oid')}`,

  'access-method': `
    SELECT ARRAY[m.amname::text] AS parts, '' AS suffix, format('type %s handler %s', m.amtype, m.amhandler) AS definition
    FROM pg_am m WHERE m.oid >= ${FIRST_USER_OID} AND ${notExtensionMember('pg_am', 'm.oid')}`,

  'foreign-data-wrapper': `
    SELECT ARRAY[w.fdwname::text] AS parts, '' AS suffix,
           concat_ws(' ', format('handler %s validator %s', w.fdwhandler::regproc, w.fdwvalidator::regproc),
                     'options ' || ${hashedOptions('w.fdwoptions')}) AS definition
    FROM pg_foreign_data_wrapper w WHERE ${notExtensionMember('pg_foreign_data_wrapper', 'w.oid')}`,

  'foreign-server': `
    SELECT ARRAY[s.srvname::text] AS parts, '' AS suffix,
           concat_ws(' ', format('wrapper %I', w.fdwname), 'type ' || s.srvtype, 'version ' || s.srvversion,
                     'options ' || ${hashedOptions('s.srvoptions')}) AS definition
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
    WHERE ${notExtensionMember('pg_foreign_server', 's.oid')}`,

  // Whom it maps and no more: its options are shown to some and not to others (PostgreSQL documentation, "pg_user_mappings").
  'user-mapping': `
    SELECT ARRAY[u.srvname::text, CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE u.usename::text END] AS parts, '' AS suffix,
           'user mapping' AS definition
    FROM pg_user_mappings u`,

  'security-label': `
    SELECT ARRAY[]::text[] AS parts, format('%s on %s %s', l.provider, l.objtype, l.objname) AS suffix, l.label AS definition
    FROM pg_seclabels l
    WHERE l.objtype NOT IN ('role', 'database', 'tablespace', 'large object') AND l.objoid >= ${FIRST_USER_OID}`,

  tablespace: `
    SELECT ARRAY[n.nspname::text, c.relname::text] AS parts, '' AS suffix, quote_ident(t.spcname) AS definition
    FROM ${RELATION} JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE ${USER_RELATION}`,

  /**
   * `ALTER DATABASE SET`, `ALTER ROLE ... IN DATABASE SET`. Without the one that the fence changes while it is up. Values of
   * customized options, whatever they are for, may be secrets.
   */
  setting: `
    SELECT ARRAY[]::text[] AS parts,
           split_part(a, '=', 1) || coalesce(' of role ' || quote_ident(r.rolname), '') AS suffix,
           CASE WHEN strpos(split_part(a, '=', 1), '.') = 0 THEN substr(a, strpos(a, '=') + 1)
                ELSE left(encode(sha256(convert_to(substr(a, strpos(a, '=') + 1), 'UTF8')), 'hex'), 16) END AS definition
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole,
         LATERAL unnest(s.setconfig) a
    WHERE d.datname = current_database() AND (s.setrole = 0 OR r.oid IS NOT NULL)
      AND split_part(a, '=', 1) <> 'default_transaction_read_only'`,
} as const;

-- The roles of a service's database that the migration runbook works with: owner, migrator, backup, administrator, each
-- with the rights it needs and no more. Once per PostgreSQL server (14 or later), by a superuser, or by a role with CREATEROLE
-- and ADMIN of the pg_* roles below; connected to the maintenance database. May be run again: it then puts right what
-- differs.
--
--   psql --no-psqlrc --set=ON_ERROR_STOP=1 \
--     --set=owner=media_owner --set=migrator=media_migrator --set=backup=media_backup --set=administrator=media_admin \
--     --set=application=media_app,media_reports --file=roles.sql "$SUPERUSER_URL"
--
-- `application`: the login roles of the service itself, which are there already. They are given nothing here; what they
-- may do is the service's own affair.
-- Passwords come by environment, never as arguments, which others could see in the list of processes: MIGRATOR_PASSWORD,
-- BACKUP_PASSWORD, ADMINISTRATOR_PASSWORD. One that is missing is left as it is.
-- `--set=bypass_row_security=yes` where tables have row security, which would hide rows from a backup; `=forced` where it is
-- forced on their owner too (FORCE ROW LEVEL SECURITY): then it would hide them from the administrator as well.
-- `--set=database=media` where the database, which is there already, holds large objects.

SET client_min_messages = warning;

\if :{?application} \else \set application '' \endif
-- Not by \getenv, which psql 14 does not know.
\if :{?migrator_password}
\else
\set present `printenv MIGRATOR_PASSWORD >/dev/null && echo yes || echo no`
\if :present
\set migrator_password `printenv MIGRATOR_PASSWORD`
\endif
\endif
\if :{?backup_password}
\else
\set present `printenv BACKUP_PASSWORD >/dev/null && echo yes || echo no`
\if :present
\set backup_password `printenv BACKUP_PASSWORD`
\endif
\endif
\if :{?administrator_password}
\else
\set present `printenv ADMINISTRATOR_PASSWORD >/dev/null && echo yes || echo no`
\if :present
\set administrator_password `printenv ADMINISTRATOR_PASSWORD`
\endif
\endif

\if :{?bypass_row_security} \else \set bypass_row_security no \endif
SELECT :'bypass_row_security' <> 'no' AS row_security, :'bypass_row_security' = 'forced' AS forced_row_security
\gset

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY[:'owner', :'migrator', :'backup', :'administrator']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- What none of them needs. Only said where it is there: a role that is no superuser may not even say NOSUPERUSER.
SELECT format('ALTER ROLE %I %s', rolname, word)
FROM pg_roles,
     LATERAL (VALUES ('NOSUPERUSER', rolsuper), ('NOREPLICATION', rolreplication),
                     ('NOCREATEDB', rolcreatedb AND rolname <> :'administrator'),
                     ('NOCREATEROLE', rolcreaterole AND rolname <> :'administrator'),
                     ('NOBYPASSRLS', rolbypassrls AND rolname <> :'backup'
                                     AND NOT (rolname = :'administrator' AND :'forced_row_security'))) AS excess(word, present)
WHERE rolname IN (:'owner', :'migrator', :'backup', :'administrator') AND present
\gexec

-- Owns the database and all that is in it. Nobody logs in as the owner, so nobody owns things by accident.
ALTER ROLE :"owner" NOLOGIN;

-- The migration and nothing else: a session of this role is a migration, and is ended without asking.
ALTER ROLE :"migrator" LOGIN;
-- To alter and create what the owner owns.
GRANT :"owner" TO :"migrator";
-- What it makes belongs to the owner, whatever driver the migration uses.
ALTER ROLE :"migrator" SET role = :'owner';
-- A lock it cannot have within seconds is given up, so that the application does not queue up behind it.
ALTER ROLE :"migrator" SET lock_timeout = '5s';

-- Backups: reads every table, view and sequence, writes nothing. The setting is a second lock on the same door.
ALTER ROLE :"backup" LOGIN;
ALTER ROLE :"backup" SET default_transaction_read_only = on;
GRANT pg_read_all_data TO :"backup";
\if :row_security
ALTER ROLE :"backup" BYPASSRLS;
\endif

-- The administrator: no superuser.
-- CREATEDB: the fresh database of a restore, and renaming it.
-- CREATEROLE: for ALTER ROLE ... IN DATABASE ... SET alone; it reaches as far as ADMIN does, see below.
ALTER ROLE :"administrator" LOGIN CREATEDB CREATEROLE;
-- Databases that belong to the owner: create, restore into, rename, comment, set read-only.
GRANT :"owner" TO :"administrator";
-- Settings of these roles in a database: the fence sets them, and a restore carries them over to the database that takes
-- the place of the old one. ADMIN reaches further, to passwords and membership: guard the administrator's own accordingly.
-- Before PostgreSQL 16 CREATEROLE alone reaches every role that is no superuser, so much is given already.
SELECT format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', name, :'administrator')
FROM unnest(ARRAY[:'migrator', :'backup'] || string_to_array(:'application', ',')) AS name
WHERE current_setting('server_version_num')::int >= 160000
\gexec
-- Sees whole sessions, replication, sizes of databases and of the write-ahead log.
GRANT pg_monitor TO :"administrator";
-- Ends sessions before a fence and before a swap, on standbys too, and the migration's own when a run is stopped.
GRANT pg_signal_backend TO :"administrator";
-- Compares a restored database with its backup, and exports rows before a swap.
GRANT pg_read_all_data TO :"administrator";
\if :forced_row_security
ALTER ROLE :"administrator" BYPASSRLS;
\endif
-- ANALYZE of restored tables that do not belong to the owner. Came with PostgreSQL 17.
SELECT format('GRANT pg_maintain TO %I', :'administrator') WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_maintain')
\gexec
-- Named restore points (recoveryPoint.restorePoint). A right in this database, the maintenance database, alone.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO :"administrator";

\if :{?migrator_password}
ALTER ROLE :"migrator" PASSWORD :'migrator_password';
\endif
\if :{?backup_password}
ALTER ROLE :"backup" PASSWORD :'backup_password';
\endif
\if :{?administrator_password}
ALTER ROLE :"administrator" PASSWORD :'administrator_password';
\endif

\if :{?database}
\connect :"database"
SET client_min_messages = warning;
-- pg_read_all_data does not reach large objects: each has rights of its own.
SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I, %I', oid, :'backup', :'administrator') FROM pg_largeobject_metadata
\gexec
-- Large objects belong to the application that made them. A restore gives each to its owner before it writes the content: that
-- takes a role that may become the owner and has his rights. The same for his default privileges below.
SELECT DISTINCT format('GRANT %I TO %I', pg_get_userbyid(lomowner), :'administrator')
       || CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH ADMIN TRUE, INHERIT TRUE, SET TRUE' ELSE '' END
FROM pg_largeobject_metadata
WHERE pg_get_userbyid(lomowner) = ANY (string_to_array(:'application', ','))
\gexec
-- Those to come, made by whom they belong to. With PostgreSQL 18; before that, run this script again before a migration.
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT SELECT ON LARGE OBJECTS TO %I, %I', name, :'backup', :'administrator')
FROM unnest(array_prepend(:'owner', string_to_array(:'application', ','))) AS name
WHERE current_setting('server_version_num')::int >= 180000
  AND (name = :'owner' OR EXISTS (SELECT FROM pg_largeobject_metadata WHERE pg_get_userbyid(lomowner) = name))
\gexec
\endif

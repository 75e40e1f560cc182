-- The roles of the Whisper Transcriber, once per PostgreSQL server, by a superuser (or a role with CREATEROLE and
-- ADMIN of the pg_* roles below). May be run again: it then sets passwords and rights anew.
--
-- Passwords come by environment, never as arguments, which others could see in the list of processes:
--   WHISPER_APP_PASSWORD WHISPER_MIGRATOR_PASSWORD WHISPER_BACKUP_PASSWORD WHISPER_ADMIN_PASSWORD
--   psql --no-psqlrc --set=ON_ERROR_STOP=1 --file=roles.sql "$SUPERUSER_URL"

SET client_min_messages = warning;

\getenv app_password WHISPER_APP_PASSWORD
\getenv migrator_password WHISPER_MIGRATOR_PASSWORD
\getenv backup_password WHISPER_BACKUP_PASSWORD
\getenv admin_password WHISPER_ADMIN_PASSWORD

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['whisper_owner', 'whisper_app', 'whisper_migrator', 'whisper_backup', 'whisper_admin']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

-- Owns the database and all that is in it. Nobody logs in as the owner.
ALTER ROLE whisper_owner NOLOGIN;

-- The application: rows, not tables (its rights: database.sql). A request never waits long for a lock.
ALTER ROLE whisper_app LOGIN PASSWORD :'app_password';
ALTER ROLE whisper_app SET lock_timeout = '10s';

-- The migration and nothing else: a session of this role is a migration. What it makes belongs to the owner, and a
-- lock it cannot have within seconds is given up, so that the application does not queue up behind it.
ALTER ROLE whisper_migrator LOGIN PASSWORD :'migrator_password';
ALTER ROLE whisper_migrator SET role = 'whisper_owner';
ALTER ROLE whisper_migrator SET lock_timeout = '5s';
GRANT whisper_owner TO whisper_migrator;

-- Backups: reads everything, writes nothing.
ALTER ROLE whisper_backup LOGIN PASSWORD :'backup_password';
ALTER ROLE whisper_backup SET default_transaction_read_only = on;
GRANT pg_read_all_data TO whisper_backup;

-- The administrator: no superuser. Makes databases for the owner (CREATEDB, member of whisper_owner), restores into
-- them, ends sessions (pg_signal_backend), renames them, sees replication (pg_monitor), analyzes (pg_maintain).
-- CREATEROLE reaches only as far as ADMIN does: it is for ALTER ROLE ... IN DATABASE ... SET, which stays with the
-- old database when another takes its place.
ALTER ROLE whisper_admin LOGIN PASSWORD :'admin_password' NOSUPERUSER CREATEDB CREATEROLE;
GRANT whisper_owner TO whisper_admin;
GRANT whisper_app, whisper_migrator, whisper_backup TO whisper_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
GRANT pg_monitor, pg_signal_backend, pg_read_all_data, pg_maintain TO whisper_admin;

-- The roles of the Whisper Transcriber, once per PostgreSQL server, by a superuser. May be run again: it then sets
-- passwords and rights anew. Its own role is made here, those of the migration by the runbook's config/postgres/roles.sql.
--
-- Passwords come by environment, never as arguments, which others could see in the list of processes:
--   WHISPER_APP_PASSWORD WHISPER_MIGRATOR_PASSWORD WHISPER_BACKUP_PASSWORD WHISPER_ADMIN_PASSWORD
--   psql --no-psqlrc --set=ON_ERROR_STOP=1 --file=roles.sql "$SUPERUSER_URL"

SET client_min_messages = warning;

-- Not by \getenv, which psql 14 does not know.
\set app_password `printenv WHISPER_APP_PASSWORD`

SELECT 'CREATE ROLE whisper_app' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'whisper_app')
\gexec

-- The application: rows, not tables (its rights: database.sql). A request never waits long for a lock.
ALTER ROLE whisper_app LOGIN PASSWORD :'app_password';
ALTER ROLE whisper_app SET lock_timeout = '10s';

-- Nobody logs in as whisper_owner, who owns the database and all that is in it.
\set owner whisper_owner
\set migrator whisper_migrator
\set backup whisper_backup
\set administrator whisper_admin
\set application whisper_app
\set migrator_password `printenv WHISPER_MIGRATOR_PASSWORD`
\set backup_password `printenv WHISPER_BACKUP_PASSWORD`
\set administrator_password `printenv WHISPER_ADMIN_PASSWORD`
\if :{?runbook_roles} \else \set runbook_roles ../../config/postgres/roles.sql \endif
\ir :runbook_roles

-- Creates the database of the Whisper Transcriber, empty or as a copy of a template, with the rights of its roles.
-- After roles.sql, by whisper_admin or a superuser, connected to another database.
--   psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=database=whisper [--set=template=template0] --file=database.sql \
--     "$ADMIN_URL"

\if :{?database} \else \set database whisper \endif
\if :{?template} \else \set template template0 \endif

CREATE DATABASE :"database" OWNER whisper_owner TEMPLATE :"template" ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO whisper_app, whisper_migrator, whisper_backup;
COMMENT ON DATABASE :"database" IS 'Whisper Transcriber';

\connect :"database"

GRANT USAGE ON SCHEMA public TO whisper_app;
ALTER DEFAULT PRIVILEGES FOR ROLE whisper_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO whisper_app;
ALTER DEFAULT PRIVILEGES FOR ROLE whisper_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO whisper_app;

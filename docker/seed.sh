#!/bin/sh
# Once for each server: the example service's roles, and its database with rows at release v1.0.0. What is there is left alone.
# usage: seed.sh HOST DATABASE
# Passwords come by environment: PGPASSWORD of the superuser, WHISPER_*_PASSWORD of the roles, ADMIN_PASSWORD.
set -eu
host=$1
database=$2
sources=/opt/whisper-transcriber
python=/opt/service/bin/python
new=${database}_new
run() { psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host "$host" --username postgres --dbname postgres "$@"; }

run --set=runbook_roles=/app/config/postgres/roles.sql --file "$sources/roles.sql"
if [ "$(run --tuples-only --no-align --command "SELECT count(*) FROM pg_database WHERE datname = '$database'")" = 1 ]; then
  echo "$host: $database is there"
  exit 0
fi
# Under another name until it is complete: one that an interrupted set-up left half-made is made anew.
run --command "DROP DATABASE IF EXISTS $new WITH (FORCE)"
run --set=database="$new" --file "$sources/database.sql"
cd "$sources/v1.0.0"
export DATABASE_URL="postgresql://whisper_migrator:$WHISPER_MIGRATOR_PASSWORD@$host/$new"
"$python" -m alembic upgrade head
PGPASSWORD=$WHISPER_MIGRATOR_PASSWORD psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host "$host" \
  --username whisper_migrator --dbname "$new" --file "$sources/seed.sql"
"$python" -m api.create_admin
run --command "ALTER DATABASE $new RENAME TO $database"
echo "$host: $database is ready"

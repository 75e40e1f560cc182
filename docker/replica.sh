#!/bin/sh
# Entry point of the replica: copies the primary at the first start, then runs PostgreSQL as the image does.
# usage: replica.sh [options for postgres]
set -eu
home=/var/lib/postgresql
passfile=$home/replication.pgpass

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  install -d -o postgres -g postgres -m 0700 "$PGDATA.new"
  (umask 077 && printf 'primary:5432:*:replicator:%s\n' "$REPLICATION_PASSWORD" >"$passfile")
  chown postgres:postgres "$passfile"
  rm -rf "${PGDATA:?}.new"/*
  # --write-recovery-conf keeps this connection string, with the name the runbook's profile knows the standby by.
  gosu postgres pg_basebackup --pgdata "$PGDATA.new" --wal-method stream --checkpoint fast --write-recovery-conf \
    --dbname "host=primary port=5432 user=replicator application_name=replica1 passfile=$passfile"
  rm -rf "$PGDATA"
  mv "$PGDATA.new" "$PGDATA"
fi
exec docker-entrypoint.sh postgres "$@"

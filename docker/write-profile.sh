#!/bin/sh
# What the worker of docker-compose.yml needs beside its environment: the key pair that backups are encrypted for (made once),
# the profile with its public half, and the staging environment file.
set -eu
umask 077
state=/var/lib/migration-runbook
mkdir -p "$state/keys" "$state/outbox" "$state/switches"
identity=$state/keys/age-identity
if [ ! -s "$identity" ]; then
  age-keygen 2>/dev/null | grep '^AGE-SECRET-KEY-' >"$identity.new"
  mv "$identity.new" "$identity"
fi
recipient=$(age-keygen -y "$identity")
sed "s/AGE_RECIPIENT/$recipient/" /app/docker/profile.yaml >/etc/migration-runbook/services/whisper-transcriber.yaml
cat >"$state/keys/.env.staging" <<END
DATABASE_URL=postgresql://whisper_migrator:$WHISPER_MIGRATOR_PASSWORD@staging/whisper_staging
REDIS_URL=redis://:$REDIS_PASSWORD@redis:6379/1
ADMIN_PASSWORD=$ADMIN_PASSWORD
END

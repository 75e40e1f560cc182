#!/bin/sh
# The document's commands, typed one after the other: sections 3 (dump, upload, list), 4 (staging, tests, boot and flows)
# and 5 (replication, upgrade, smoke tests). What is taken from the environment stands in overhead.ts.
set -eu
rm -rf by-hand && mkdir by-hand && cd by-hand

git -c safe.directory='*' clone --quiet --branch "$RELEASE" "$REPOSITORY" release 2>/dev/null
dump="whisper-transcriber-$(date +%Y%m%d%H%M%S).dump"

# 3. Backup
pg_dump --format=custom --file="$dump" "$BACKUP_URL"
"$RCLONE" copyto --s3-no-check-bucket "$dump" "store:$BUCKET/by-hand/$dump"
pg_restore --list "$dump" >contents.txt

# 4. Dry run
cd release
export DATABASE_URL="$DATABASE_URL_STAGING"
pg_dump --schema-only --file=../before.sql "$(echo "$DATABASE_URL" | sed 's/+psycopg//')"
alembic upgrade head 2>../staging.log
python -m pytest -q tests/test_migrations.py >../pytest.log
pg_dump --schema-only --file=../after.sql "$(echo "$DATABASE_URL" | sed 's/+psycopg//')"
diff ../before.sql ../after.sql >../schema.diff || true

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
REDIS_URL="$REDIS_URL_STAGING" python -m uvicorn api.main:app --host 127.0.0.1 --port "$port" >../api.log 2>&1 &
api=$!
trap 'kill $api 2>/dev/null || true' EXIT
python - "http://127.0.0.1:$port" <<'PYTHON'
import os, sys, time
import httpx
with httpx.Client(base_url=sys.argv[1], timeout=30) as client:
    for _ in range(300):
        try:
            if client.get("/healthz").status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    upload = client.post("/recordings", files={"file": ("dry-run.wav", b"dry run", "audio/wav")}).raise_for_status()
    audio = client.get(f"/recordings/{upload.json()['id']}/audio").raise_for_status()
    assert audio.content == b"dry run"
    login = {"username": "admin", "password": os.environ["ADMIN_PASSWORD_STAGING"]}
    token = client.post("/auth/login", json=login).raise_for_status().json()["token"]
    client.get("/admin/summary", headers={"Authorization": f"Bearer {token}"}).raise_for_status()
PYTHON
kill "$api" && wait "$api" || true

# 5. Production
export DATABASE_URL="$DATABASE_URL_PRODUCTION"
psql --no-psqlrc -Atc 'SELECT now() - pg_last_xact_replay_timestamp()' "$(echo "$DATABASE_URL" | sed 's/+psycopg//')"
alembic upgrade head 2>../production.log
python -c "import httpx, sys; sys.exit(httpx.get('$API_URL/healthz').json()['status'] != 'ok')"
python smoke/celery_ping.py
python smoke/transcription.py --base-url "$API_URL"

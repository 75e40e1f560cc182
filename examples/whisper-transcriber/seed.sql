-- Rows for an empty database at the revision of v1.0.0: the same rows every time. As whisper_migrator or the owner.
--   psql --no-psqlrc --set=ON_ERROR_STOP=1 [--set=scale=1] [--set=audio_size=4096] --file=seed.sql "$MIGRATOR_URL"
--
-- scale       multiplies the rows; 1 gives about 30,000 rows
-- audio_size  bytes of sound in a recording, a multiple of 32; it does not compress

\if :{?scale} \else \set scale 1 \endif
\if :{?audio_size} \else \set audio_size 4096 \endif

SELECT EXISTS (SELECT FROM recordings) AS seeded \gset
\if :seeded
    \warn 'seed.sql: the database has recordings already, nothing to do'
    \quit
\endif

BEGIN;

-- Everything before this moment: no row depends on when it was made.
SELECT timestamptz '2026-01-01 00:00:00+00' AS epoch \gset

CREATE FUNCTION pg_temp.little_endian(n integer) RETURNS bytea IMMUTABLE LANGUAGE sql AS $$
    SELECT string_agg(substring(int4send(n) FROM i FOR 1), '' ORDER BY i DESC) FROM generate_series(1, 4) i
$$;

-- WAV: 8,000 samples a second, 8 bit, mono.
CREATE FUNCTION pg_temp.wav(size integer) RETURNS bytea IMMUTABLE LANGUAGE sql AS $$
    SELECT 'RIFF'::bytea || pg_temp.little_endian(36 + size) || 'WAVEfmt '::bytea || pg_temp.little_endian(16)
        || '\x01000100'::bytea || pg_temp.little_endian(8000) || pg_temp.little_endian(8000) || '\x01000800'::bytea
        || 'data'::bytea || pg_temp.little_endian(size)
$$;

INSERT INTO users (username, email, password_hash, created_at)
SELECT 'user' || g, 'user' || g || '@example.com', '!', :'epoch'::timestamptz + g * interval '1 minute'
FROM generate_series(1, 200 * :scale) g;

INSERT INTO api_keys (user_id, label, key_sha256, created_at, revoked_at)
SELECT 1 + g % (200 * :scale), 'key ' || g, encode(sha256(('key' || g)::bytea), 'hex'),
       :'epoch'::timestamptz + g * interval '1 minute',
       CASE WHEN g % 7 = 0 THEN :'epoch'::timestamptz + g * interval '1 hour' END
FROM generate_series(1, 400 * :scale) g;

INSERT INTO tags (name)
SELECT 'topic ' || g FROM generate_series(1, 40) g;

-- The sound is the digest of its number, so that no two are alike, and a stretch of one long noise.
WITH source AS MATERIALIZED (
    SELECT pg_temp.wav(:audio_size) AS header,
           (SELECT string_agg(sha256(int8send(i)), '' ORDER BY i)
            FROM generate_series(1, 32768 + :audio_size / 32) i) AS noise
)
INSERT INTO recordings
    (user_id, title, media_type, audio, audio_bytes, audio_sha256, duration_ms, status, note, uploaded_at)
SELECT 1 + g % (200 * :scale), 'Interview ' || g, 'audio/wav', sound, octet_length(sound), encode(sha256(sound), 'hex'),
       :audio_size / 8,
       (CASE WHEN g % 50 = 0 THEN 'failed' ELSE 'transcribed' END)::recording_status,
       CASE WHEN g % 9 = 0 THEN 'second session' END,
       :'epoch'::timestamptz + g * interval '1 minute'
FROM generate_series(1, 4000 * :scale) g, source,
     LATERAL (SELECT header || sha256(int8send(-g)) ||
                     substring(noise FROM 1 + (g * 7919::bigint % 1048576)::integer FOR :audio_size - 32) AS sound) audio;

INSERT INTO transcripts (recording_id, language, text, words_sha256, engine, created_at)
SELECT id, (ARRAY['en', 'de', 'fr', 'es'])[1 + id % 4], spoken, encode(sha256(spoken::bytea), 'hex'), 'stand-in-1',
       uploaded_at + interval '5 minutes'
FROM recordings,
     LATERAL (SELECT string_agg(words[1 + ((id * 2654435761 + i * 40503) >> 7) % 24], ' ' ORDER BY i) AS spoken
              FROM generate_series(1, 150 + id % 100) i,
                   (SELECT string_to_array('about across bridge carry clear country deliver evening figure garden'
                        ' ground island journey kitchen letter market minute mountain office paper quiet river'
                        ' season signal', ' ') AS words) vocabulary) speech
WHERE status = 'transcribed'
ORDER BY id;

INSERT INTO jobs (id, recording_id, state, error, created_at, updated_at, finished_at)
SELECT md5('job' || id)::uuid, id, (CASE status WHEN 'failed' THEN 'failed' ELSE 'succeeded' END)::job_state,
       CASE status WHEN 'failed' THEN 'no speech found' END,
       uploaded_at, uploaded_at + interval '5 minutes', uploaded_at + interval '5 minutes'
FROM recordings
ORDER BY id;

INSERT INTO recording_tags (recording_id, tag_id)
SELECT id, 1 + (id * step) % 40
FROM recordings, (VALUES (1), (7), (11)) steps (step)
ON CONFLICT DO NOTHING;

INSERT INTO audit_log (user_id, action, detail, at)
SELECT 1 + g % (200 * :scale), (ARRAY['upload', 'playback', 'download'])[1 + g % 3],
       jsonb_build_object('recording', 1 + g % (4000 * :scale)), :'epoch'::timestamptz + g * interval '30 seconds'
FROM generate_series(1, 6000 * :scale) g;

COMMIT;

-- Only the owner of the database, not the owner of the shared catalogs.
SET client_min_messages = error;
ANALYZE;

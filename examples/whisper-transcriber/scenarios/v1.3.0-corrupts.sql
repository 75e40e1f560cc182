-- Transcripts delivered by a partner, typed on Windows: more than one line, each ending in CR LF.
-- Legal rows for v1.0.0, as whisper_app or the owner; a second time adds none.
-- The upgrade to v1.3.0-corrupts cuts them after their first line: /healthz then says `damaged`, and no downgrade
-- brings the lines back.

WITH delivered AS (
    INSERT INTO recordings (title, media_type, audio, audio_bytes, audio_sha256, status, note)
    SELECT 'Hearing ' || g, 'audio/ogg', sound, octet_length(sound), encode(sha256(sound), 'hex'),
           'transcribed', 'typed by a partner'
    FROM generate_series(1, 25) g, LATERAL (SELECT sha256(('hearing' || g)::bytea) AS sound) audio
    WHERE NOT EXISTS (SELECT FROM recordings WHERE note LIKE 'typed by a partner')
    RETURNING id
)
INSERT INTO transcripts (recording_id, language, text, words_sha256, engine)
SELECT id, 'en', replace(words, ' / ', E'\r\n'), encode(sha256(replace(words, ' / ', ' ')::bytea), 'hex'), 'typed'
FROM delivered,
     (VALUES ('the hearing begins at nine / the first witness is called / the hearing ends at noon')) typed (words);

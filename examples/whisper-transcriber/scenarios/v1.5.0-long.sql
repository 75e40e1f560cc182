-- Recordings that came in by bulk import.
-- Legal rows for v1.0.0, as whisper_app or the owner; a second time adds none.
-- Each one costs each of the three revisions of v1.5.0-long a fifth of a second: four seconds a
-- revision.

INSERT INTO recordings (title, media_type, audio, audio_bytes, audio_sha256, status, note)
SELECT 'Archive tape ' || g, 'audio/ogg', sound, octet_length(sound), encode(sha256(sound), 'hex'),
       'uploaded', 'bulk import: archive ' || 1 + g % 3
FROM generate_series(1, 20) g, LATERAL (SELECT sha256(('tape' || g)::bytea) AS sound) audio
WHERE NOT EXISTS (SELECT FROM recordings WHERE note LIKE 'bulk import:%');

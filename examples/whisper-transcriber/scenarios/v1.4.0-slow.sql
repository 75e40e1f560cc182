-- Recordings under review.
-- Legal rows for v1.0.0, as whisper_app or the owner; a second time adds none.
-- Each one costs the upgrade to v1.4.0-slow a second: 600 seconds in one transaction, with nobody
-- able to read a recording.

INSERT INTO recordings (title, media_type, audio, audio_bytes, audio_sha256, status, note)
SELECT 'Complaint ' || g, 'audio/ogg', sound, octet_length(sound), encode(sha256(sound), 'hex'),
       'uploaded', 'review: complaint ' || g
FROM generate_series(1, 600) g, LATERAL (SELECT sha256(('complaint' || g)::bytea) AS sound) audio
WHERE NOT EXISTS (SELECT FROM recordings WHERE note LIKE 'review:%');

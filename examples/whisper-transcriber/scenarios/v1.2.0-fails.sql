-- Three people who have signed up twice, with their address in another case.
-- Legal rows for v1.0.0, as whisper_app or the owner; a second time adds none.
-- Revision 0005 of v1.2.0-fails then fails; 0003 and 0004 are committed before it.

INSERT INTO users (username, email, password_hash)
SELECT name || suffix, address, '!'
FROM (VALUES ('ana'), ('ben'), ('eve')) people (name),
     LATERAL (VALUES ('', name || '@example.com'), ('2', initcap(name) || '@Example.com')) accounts (suffix, address)
ON CONFLICT DO NOTHING;

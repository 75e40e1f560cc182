"""A deterministic stand-in for the speech model: the same audio always becomes the same words.

The words are drawn from the SHA-256 of the audio. Loading a real model would add gigabytes and minutes
and prove nothing about a database migration.
"""

import hashlib

ENGINE = "stand-in-1"
LANGUAGE = "en"
WORDS = (
    "able about after again almost along always among answer around become before begin behind below "
    "between bridge bright bring build carry change clear close country cover cross current deliver "
    "early earth enough evening every field figure follow forward garden gather ground hour island "
    "journey kitchen language large letter listen market measure minute morning mountain number "
    "ocean office paper people question quiet record river season signal silver station"
).split()


def transcribe(audio: bytes) -> str:
    """12 to 43 words."""
    digest = hashlib.sha256(audio).digest()
    count = 12 + digest[0] % 32
    stream = digest + hashlib.sha256(digest).digest()
    return " ".join(WORDS[byte % len(WORDS)] for byte in stream[1 : count + 1])


def words_digest(text: str) -> str:
    """SHA-256 of the words alone, so that line ends and spacing may change and the words may not."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()

"""Passwords as scrypt hashes: `scrypt$<salt>$<key>`, both in hexadecimal."""

import hashlib
import hmac
import os


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    return f"scrypt${salt.hex()}${_derive(password, salt).hex()}"


def password_matches(password: str, stored: str) -> bool:
    """False for the wrong password, and for `!`, the hash of accounts that cannot log in."""
    scheme, _, rest = stored.partition("$")
    salt, _, key = rest.partition("$")
    if scheme != "scrypt" or not salt:
        return False
    return hmac.compare_digest(_derive(password, bytes.fromhex(salt)), bytes.fromhex(key))

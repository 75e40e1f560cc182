"""Whisper Transcriber: recordings in, text out."""

__version__ = "1.1.0"

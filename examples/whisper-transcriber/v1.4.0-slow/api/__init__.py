"""Whisper Transcriber: recordings in, text out."""

__version__ = "1.4.0"

"""Whisper Transcriber: recordings in, text out."""

__version__ = "1.0.0"

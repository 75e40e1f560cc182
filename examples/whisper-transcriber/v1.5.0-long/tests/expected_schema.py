"""What must be there after the upgrade to this release, written down by hand, apart from models and migrations."""

REVISION = "0005_recordings_by_import"
COLUMNS = {
    "imports": {"id", "name", "recordings"},
    "users": {"id", "username", "email", "password_hash", "is_admin", "created_at"},
    "api_keys": {"id", "user_id", "label", "key_sha256", "created_at", "revoked_at"},
    "admin_sessions": {"token_sha256", "user_id", "created_at", "expires_at"},
    "recordings": {
        "id", "user_id", "reference", "title", "media_type", "audio", "audio_bytes", "audio_sha256",
        "duration_ms", "status", "note", "import_id",
        "uploaded_at",
    },
    "tags": {"id", "name"},
    "recording_tags": {"recording_id", "tag_id"},
    "transcripts": {"id", "recording_id", "language", "text", "words_sha256", "engine", "created_at"},
    "jobs": {"id", "recording_id", "state", "error", "created_at", "updated_at", "finished_at"},
    "audit_log": {"id", "user_id", "action", "detail", "at"},
}  # fmt: skip
VIEWS = {"recording_overview"}
INDEXES = {
    "recordings": {"recordings_status_uploaded_at_idx", "recordings_import_id_idx"},
    "audit_log": {"audit_log_at_idx"},
}

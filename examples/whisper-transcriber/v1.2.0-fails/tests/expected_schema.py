"""What must be there after the upgrade to this release, written down by hand, apart from models and migrations."""

REVISION = "0005_one_account_per_email"
COLUMNS = {
    "teams": {"id", "name"},
    "users": {"id", "username", "email", "password_hash", "is_admin", "team_id", "created_at"},
    "api_keys": {"id", "user_id", "label", "key_sha256", "created_at", "revoked_at"},
    "admin_sessions": {"token_sha256", "user_id", "created_at", "expires_at"},
    "recordings": {
        "id", "user_id", "reference", "title", "media_type", "audio", "audio_bytes", "audio_sha256",
        "duration_ms", "status", "note", "uploaded_at",
    },
    "tags": {"id", "name"},
    "recording_tags": {"recording_id", "tag_id"},
    "transcripts": {"id", "recording_id", "language", "text", "words_sha256", "engine", "created_at"},
    "jobs": {"id", "recording_id", "state", "error", "created_at", "updated_at", "finished_at"},
    "audit_log": {"id", "user_id", "action", "detail", "at"},
}  # fmt: skip
VIEWS = {"recording_overview"}
INDEXES = {
    "users": {"users_email_idx", "users_team_id_idx"},
    "recordings": {"recordings_status_uploaded_at_idx"},
    "audit_log": {"audit_log_at_idx"},
}

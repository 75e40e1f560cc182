"""People and programs that use the service."""

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from api.models.base import Base, Id, LaterMoment, Moment


class Team(Base):
    __tablename__ = "teams"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(unique=True)


class User(Base):
    __tablename__ = "users"
    __table_args__ = (Index("users_email_idx", text("lower(email)"), unique=True),)

    id: Mapped[Id]
    username: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(server_default="false")
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"), index=True)
    created_at: Mapped[Moment]


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[Id]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    label: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[Moment]
    revoked_at: Mapped[LaterMoment]


class AdminSession(Base):
    __tablename__ = "admin_sessions"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment] = mapped_column(server_default=None)

"""Administrators: log in, look at the numbers."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy import func, select

from api.database import DatabaseSession
from api.models import AdminSession, AuditEntry, Recording, Transcript, User
from api.passwords import password_matches

router = APIRouter()

SESSION_LENGTH = timedelta(hours=8)


class Login(BaseModel):
    username: str
    password: str


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def administrator(
    session: DatabaseSession,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> User:
    """The administrator whose token came with the request, else 401."""
    user = bearer and session.scalar(
        select(User)
        .join(AdminSession)
        .where(AdminSession.token_sha256 == _digest(bearer.credentials), AdminSession.expires_at > func.now())
    )
    if not user:
        raise HTTPException(401, "log in first", headers={"WWW-Authenticate": "Bearer"})
    return user


@router.post("/auth/login")
def login(request: Login, session: DatabaseSession) -> dict[str, str]:
    user = session.scalar(select(User).where(User.username == request.username, User.is_admin))
    if user is None or not password_matches(request.password, user.password_hash):
        raise HTTPException(401, "wrong user name or password")
    token = secrets.token_urlsafe(32)
    expires_at = datetime.now(UTC) + SESSION_LENGTH
    session.add(AdminSession(token_sha256=_digest(token), user_id=user.id, expires_at=expires_at))
    session.add(AuditEntry(user_id=user.id, action="login"))
    session.commit()
    return {"token": token, "expires_at": expires_at.isoformat()}


@router.get("/admin/summary")
def summary(session: DatabaseSession, user: Annotated[User, Depends(administrator)]) -> dict[str, object]:
    by_status = session.execute(select(Recording.status, func.count()).group_by(Recording.status)).all()
    return {
        "username": user.username,
        "users": session.scalar(select(func.count()).select_from(User)),
        "recordings": {status.value: count for status, count in by_status},
        "transcripts": session.scalar(select(func.count()).select_from(Transcript)),
    }

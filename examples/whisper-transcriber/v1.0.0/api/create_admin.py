"""Creates the administrator `admin`, or gives them the password of ADMIN_PASSWORD: `python -m api.create_admin`."""

from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql import insert

from api.models import User
from api.passwords import hash_password
from api.settings import admin_password, database_url


def main() -> None:
    values = {"password_hash": hash_password(admin_password()), "is_admin": True}
    with create_engine(database_url()).begin() as connection:
        connection.execute(
            insert(User)
            .values(username="admin", email="admin@example.com", **values)
            .on_conflict_do_update(index_elements=[User.username], set_=values)
        )


if __name__ == "__main__":
    main()

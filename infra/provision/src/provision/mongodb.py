"""A MongoDB user for each service: read and write in its own database, nothing anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import MongoClient


def provide_users(client: MongoClient[dict[str, Any]], passwords: Mapping[str, str], prefix: str) -> None:
    """Make the users, or give those that are there this password and these rights.

    Args:
        client: connected as root.
        passwords: by service.
        prefix: of the databases' names.

    Raises:
        PyMongoError: the server is away, or refuses.
    """
    admin = client["admin"]
    for service, password in passwords.items():
        known = admin.command("usersInfo", service)["users"]
        roles = [{"role": "readWrite", "db": f"{prefix}{service}"}]
        admin.command("updateUser" if known else "createUser", service, pwd=password, roles=roles)

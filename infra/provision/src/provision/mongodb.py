"""A MongoDB user for each service that has a database: read and write in its own, nothing anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import MongoClient


def provide_users(client: MongoClient[dict[str, Any]], passwords: Mapping[str, str], prefix: str) -> None:
    """Make the users, or give those that are there this password and these rights; drop services' others.

    What a service had written stays: its database is not dropped with its user.

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
        command = "updateUser" if known else "createUser"
        admin.command(command, service, pwd=password, roles=_rights(service, prefix))
    for user in admin.command("usersInfo", 1)["users"]:
        name = user["user"]
        if name not in passwords and user["roles"] == _rights(name, prefix):
            admin.command("dropUser", name)


def _rights(service: str, prefix: str) -> list[dict[str, str]]:
    """A service's; whoever has exactly these was made here."""
    return [{"role": "readWrite", "db": f"{prefix}{service}"}]

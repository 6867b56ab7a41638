"""Makes users and keys, and ends: 0 when all of them are there."""

from __future__ import annotations

from pymongo import MongoClient

from provision.mongodb import provide_users
from provision.objects import provide_keys
from provision.settings import Settings


def main() -> None:
    """Provide for every service; repeating it changes nothing but what the secrets or rights changed."""
    settings = Settings()
    passwords, keys = settings.mongo_passwords(), settings.objects_keys()
    with MongoClient[dict[str, object]](
        settings.mongo_url,
        username=settings.mongo_root_user,
        password=settings.secret("mongo_password"),
        serverSelectionTimeoutMS=settings.mongo_seconds * 1000,
    ) as client:
        provide_users(client, passwords, settings.mongo_database_prefix)
    print(f"{len(passwords)} database users")
    root = (settings.objects_root_user, settings.secret("objects_secret_key"))
    provide_keys(settings.objects_endpoint, root, settings.objects_bucket, keys)
    print(f"{len(keys)} object store keys")


if __name__ == "__main__":
    main()

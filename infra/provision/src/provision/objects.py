"""The bucket, and an access key with a policy of its own for each service, through MinIO's administration API."""

from __future__ import annotations

from collections.abc import Mapping

from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider

from provision.rights import RIGHTS, policy

REGION = "us-east-1"


def provide_keys(endpoint: str, root: tuple[str, str], bucket: str, keys: Mapping[str, str]) -> None:
    """Make the bucket and the keys, or give those that are there this secret and this policy.

    Args:
        endpoint: host:port of the store.
        root: its root user's access key and secret key.
        bucket: of all objects.
        keys: secret key by service; the access key is the service's name.

    Raises:
        MinioException: the store refuses.
    """
    access, secret = root
    store = Minio(endpoint=endpoint, access_key=access, secret_key=secret, secure=False, region=REGION)
    if not store.bucket_exists(bucket_name=bucket):
        store.make_bucket(bucket_name=bucket)
    admin = MinioAdmin(endpoint=endpoint, credentials=StaticProvider(access, secret), secure=False, region=REGION)
    for service, key in keys.items():
        admin.user_add(service, key)
        admin.policy_add(service, policy=policy(RIGHTS[service], bucket))
        admin.policy_set(service, user=service)

"""The bucket, and the part of minio's client that `stores.objects` uses: without a process, as documents are."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

from minio.error import S3Error

from stores.objects import ObjectClient


class SimulatedObjects:
    """Objects by key."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def as_client(self) -> ObjectClient:
        """Itself, for `build(objects=…)`."""
        return cast(ObjectClient, self)

    def bucket_exists(self, **_: Any) -> bool:
        """See minio."""
        return True

    def put_object(self, *, object_name: str, data: Any, length: int, **_: Any) -> None:
        """See minio."""
        self.objects[object_name] = data.read(length)

    def list_objects(self, *, prefix: str, **_: Any) -> list[Any]:
        """See minio."""
        return [SimpleNamespace(object_name=name) for name in sorted(self.objects) if name.startswith(prefix)]

    def remove_object(self, *, object_name: str, **_: Any) -> None:
        """See minio."""
        self.objects.pop(object_name, None)

    def get_object(self, *, object_name: str, **_: Any) -> Any:
        """See minio."""
        if object_name not in self.objects:
            raise S3Error(None, "NoSuchKey", "", "", "", "", object_name=object_name)  # type: ignore[arg-type]
        return stored(self.objects[object_name])


def stored(body: bytes) -> Any:
    """The answer to a read."""
    stream = io.BytesIO(body)
    return SimpleNamespace(read=stream.read, read1=stream.read1, close=stream.close, release_conn=lambda: None)

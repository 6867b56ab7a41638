"""What each service may do with the documents and objects of an installation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FOLDERS = ("adapters", "arms", "datasets", "documents", "evaluations", "files", "jobs", "labels")
"""The folders below a tenant's: objects lie at `tenants/{tenant}/{folder}/...`."""

GET = ("s3:GetObject",)
PUT = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


@dataclass(frozen=True)
class Rights:
    """One service's.

    Attributes:
        documents: whether it has a database.
        writes: the folders whose objects it writes, removes and reads.
        reads: the folders whose objects it only reads.
    """

    documents: bool = True
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


RIGHTS = {
    "accounts": Rights(),
    "ingest": Rights(writes=("files", "documents", "datasets", "labels")),
    "labeling": Rights(writes=("labels",), reads=("files",)),
    "trainer": Rights(writes=("jobs", "adapters", "arms"), reads=("datasets", "documents", "files")),
    "evaluator": Rights(writes=("evaluations",), reads=("datasets", "adapters", "documents", "files")),
    "registry": Rights(reads=("adapters",)),
    "rag_indexer": Rights(reads=("arms", "documents")),
    "inference_proxy": Rights(),
    "model_server": Rights(documents=False, reads=("adapters",)),
    "serving_agent": Rights(reads=("adapters",)),
    "console": Rights(),
    "event_gateway": Rights(),
}
"""By package name. The bytes of a file made of published labels are the labels; ingest removes them with the file."""


def policy(rights: Rights, bucket: str) -> dict[str, Any]:
    """The policy of a service's key, in the language of S3.

    A `*` of a resource also stands for slashes, so what is allowed in one folder is refused in each folder of another
    kind by name. Every service may list the bucket: names hold identifiers only, and readiness is asked that way.

    Args:
        rights: of the service.
        bucket: that holds all objects.
    """
    seen = (*rights.writes, *rights.reads)
    objects = {
        ("Allow", GET): seen,
        ("Allow", PUT): rights.writes,
        ("Deny", GET): tuple(name for name in FOLDERS if name not in seen),
        ("Deny", PUT): tuple(name for name in FOLDERS if name not in rights.writes),
    }
    statements = [_statement("Allow", ("s3:ListBucket", "s3:GetBucketLocation"), [f"arn:aws:s3:::{bucket}"])]
    statements += [
        _statement(effect, actions, [f"arn:aws:s3:::{bucket}/tenants/*/{name}/*" for name in folders])
        for (effect, actions), folders in objects.items()
        if folders
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(effect: str, actions: Iterable[str], resources: Iterable[str]) -> dict[str, Any]:
    return {"Effect": effect, "Action": list(actions), "Resource": list(resources)}

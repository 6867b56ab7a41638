"""Which adapters a replica holds, that it proves them, and what it says of them; the same for every engine."""

from serving.announcing import Publish
from serving.attestation import AdapterRefused, Proof, proof_of, read_probes, verify
from serving.base_folder import BaseFolder, BaseRefused
from serving.downloads import Downloads
from serving.host import AdapterHost
from serving.residency import Residency
from serving.settings import ReplicaSettings

__all__ = [
    "AdapterHost",
    "AdapterRefused",
    "BaseFolder",
    "BaseRefused",
    "Downloads",
    "Proof",
    "Publish",
    "ReplicaSettings",
    "Residency",
    "proof_of",
    "read_probes",
    "verify",
]

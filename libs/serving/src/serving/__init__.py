"""How a replica holds adapters, proves them and announces them, whatever its engine is."""

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

"""What services hand each other as files: base-model folders, adapters, arms and what was held out."""

from pydantic import BaseModel

from schemas.artifacts.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FINGERPRINT,
    MANIFEST,
    AdapterManifest,
    FileFacts,
    adapter_id_of,
)
from schemas.artifacts.arm import (
    ARM_ANSWERS,
    ARM_FINGERPRINT,
    ARM_NUMBERS,
    ARM_TOLERANCE,
    ArmFingerprint,
    ArmKind,
    ArmManifest,
    ArmProbe,
    EmbedderFacts,
    arm_id_of,
)
from schemas.artifacts.base_model import BASE_FILE, BaseModelSpec, digest_of
from schemas.artifacts.fingerprint import FINGERPRINT_TOLERANCE, LEAST_CHANGE, Fingerprint, Probe
from schemas.artifacts.heldout import (
    HELDOUT,
    MOST_DOCUMENTS,
    MOST_WINDOWS,
    HeldoutDocument,
    HeldoutText,
    HeldoutWindow,
)
from schemas.artifacts.price import Price
from schemas.artifacts.provider_model import PROVIDER_FILE, Provider, ProviderModelSpec

ARTIFACTS: dict[str, type[BaseModel]] = {
    "base-model": BaseModelSpec,
    "provider-model": ProviderModelSpec,
    "adapter-manifest": AdapterManifest,
    "fingerprint": Fingerprint,
    "arm-manifest": ArmManifest,
    "arm-fingerprint": ArmFingerprint,
    "heldout-text": HeldoutText,
}
"""Every artifact whose schema is exported, by the name of that file."""

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "ARM_ANSWERS",
    "ARM_FINGERPRINT",
    "ARM_NUMBERS",
    "ARM_TOLERANCE",
    "ARTIFACTS",
    "BASE_FILE",
    "FINGERPRINT",
    "FINGERPRINT_TOLERANCE",
    "HELDOUT",
    "LEAST_CHANGE",
    "MANIFEST",
    "MOST_DOCUMENTS",
    "MOST_WINDOWS",
    "PROVIDER_FILE",
    "AdapterManifest",
    "ArmFingerprint",
    "ArmKind",
    "ArmManifest",
    "ArmProbe",
    "BaseModelSpec",
    "EmbedderFacts",
    "FileFacts",
    "Fingerprint",
    "HeldoutDocument",
    "HeldoutText",
    "HeldoutWindow",
    "Price",
    "Probe",
    "Provider",
    "ProviderModelSpec",
    "adapter_id_of",
    "arm_id_of",
    "digest_of",
]

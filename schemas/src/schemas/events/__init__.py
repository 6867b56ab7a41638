"""Every event of Sartor, a file per aggregate. Made by `python -m schemas.export`; do not edit."""

from schemas.events.accounts import KeyRevoked, KeyRotated, TenantCreated, TenantPolicy, TenantPolicyChanged
from schemas.events.adapters import AdapterEvicted, AdapterLoadFailed, AdapterResident
from schemas.events.chats import ChatCompleted
from schemas.events.datasets import DatasetDeleted, DatasetPrepared, DatasetRejected
from schemas.events.documents import DocumentIndexed, DocumentParsed
from schemas.events.drift import DriftDetected
from schemas.events.evaluations import EvaluationCompleted, EvidenceDeleted
from schemas.events.feedback import FeedbackDeleted, FeedbackRecorded
from schemas.events.files import FileDeleted, FileUploaded
from schemas.events.finetunes import (
    FinetuneAdapterDeleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneStarted,
    FinetuneSucceeded,
    FinetuneTrained,
)
from schemas.events.labels import LabelingRequested, LabelsDeleted, LabelsPublished
from schemas.events.models import (
    ModelDeleted,
    ModelDownloaded,
    ModelPinned,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ModelWaiting,
)
from schemas.events.replicas import ReplicaReady

__all__ = [
    "AdapterEvicted",
    "AdapterLoadFailed",
    "AdapterResident",
    "ChatCompleted",
    "DatasetDeleted",
    "DatasetPrepared",
    "DatasetRejected",
    "DocumentIndexed",
    "DocumentParsed",
    "DriftDetected",
    "EvaluationCompleted",
    "EvidenceDeleted",
    "FeedbackDeleted",
    "FeedbackRecorded",
    "FileDeleted",
    "FileUploaded",
    "FinetuneAdapterDeleted",
    "FinetuneArmFitted",
    "FinetuneCancelled",
    "FinetuneFailed",
    "FinetuneRequested",
    "FinetuneStarted",
    "FinetuneSucceeded",
    "FinetuneTrained",
    "KeyRevoked",
    "KeyRotated",
    "LabelingRequested",
    "LabelsDeleted",
    "LabelsPublished",
    "ModelDeleted",
    "ModelDownloaded",
    "ModelPinned",
    "ModelPromoted",
    "ModelRegistered",
    "ModelRejected",
    "ModelRetired",
    "ModelUnpinned",
    "ModelWaiting",
    "ReplicaReady",
    "TenantCreated",
    "TenantPolicy",
    "TenantPolicyChanged",
]

"""Wires the indexer together."""

from __future__ import annotations

import re
from typing import Unpack

from fastapi import FastAPI

from chassis.in_flight import InFlight
from rag_indexer.api import arm_routes, embedding_routes, search_routes, store_file_routes, store_routes
from rag_indexer.arms.answering import AskArm
from rag_indexer.arms.held import HeldArms
from rag_indexer.arms.reading import ArmFiles
from rag_indexer.documents import Documents
from rag_indexer.domain import Chunking, Store, StoreFile
from rag_indexer.embedding import Embedding
from rag_indexer.events import subscriptions
from rag_indexer.fair_executor import FairExecutor
from rag_indexer.milvus import Vectors
from rag_indexer.settings import Settings
from rag_indexer.store import TO_DO, Stores
from rag_indexer.use_cases import Collections, Limits, Search
from rag_indexer.worker import Indexing, policy
from runtime import Overrides, Service
from work import LeasedWorker, WorkQueue


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The indexer's application."""
    service = Service("rag_indexer", settings, **overrides)
    files = service.aggregates("files", StoreFile)
    stores = Stores(
        service.aggregates("stores", Store), files, service.collection("chunks"), service.collection("documents")
    )
    waiting = WorkQueue(files, TO_DO, service.collection("turns"))
    in_flight = InFlight(
        "searches and embeddings",
        most=settings.embedding_waiting,
        most_each=settings.embedding_tenant_waiting,
        retry_after=2,
    )
    of_people = InFlight(
        "answers of arms", most=settings.arms_waiting, most_each=settings.arms_tenant_waiting, retry_after=1
    )
    of_tests = InFlight(
        "answers of arms to tests", most=settings.arms_testing, most_each=settings.arms_testing, retry_after=1
    )
    of_fits = InFlight(
        "embeddings for fits", most=settings.arms_fitting, most_each=settings.arms_fitting, retry_after=2
    )
    executor = FairExecutor()
    embedding = Embedding(
        settings.embedding_model, settings.embedding_threads, settings.embedding_request_tokens, executor
    )
    held = HeldArms(ArmFiles(service.objects), embedding, executor, settings.arms_bytes)
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"{settings.topic_prefix}chunks_{settings.embedding_model}")
    vectors = Vectors(settings.milvus_url, name)
    limits = Limits(settings.rag_stores, settings.rag_store_files)
    auto = Chunking(tokens=settings.rag_chunk_tokens)
    collections = Collections(stores, vectors, service.peer("ingest"), limits, auto)
    documents = Documents(stores, service.objects, settings.rag_file_bytes)
    indexing = Indexing(stores, collections, vectors, embedding, service.objects, settings)
    worker = LeasedWorker(waiting, indexing, policy(settings), service.replica_id)
    service.on_start(stores.prepare)
    service.on_start(waiting.prepare)
    service.bus.subscribe(subscriptions(collections))
    service.background("worker", worker.run)
    service.background("sweep", collections.sweep)
    service.watch_leases(files, waiting.query)
    return service.app(
        [
            store_routes(stores, collections),
            search_routes(Search(stores, collections, vectors, embedding), in_flight),
            store_file_routes(stores, collections, documents),
            embedding_routes(embedding, in_flight),
            arm_routes(AskArm(held, embedding, of_people, of_tests), embedding, of_fits),
        ],
        checks={"milvus": vectors.ping},
    )

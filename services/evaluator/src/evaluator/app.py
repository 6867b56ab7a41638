"""Wires the evaluator together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from evaluator.api import routes
from evaluator.asking import Asking
from evaluator.by_answers import ByAnswers
from evaluator.by_scores import ByScores
from evaluator.domain import OPEN, Evaluation
from evaluator.events import subscriptions
from evaluator.proxy import Proxy
from evaluator.settings import Settings
from evaluator.store import ARMS, Answers, Artifacts, Evaluations
from evaluator.suites import ARM_SUITES, GENERATING_SUITES, SUITES
from evaluator.use_cases import Evaluate, Queue
from evaluator.worker import Evaluating, policy
from runtime import Overrides, Service
from work import LeasedWorker, WorkQueue

SWEEP_SECONDS = 60


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The evaluator's application."""
    service = Service("evaluator", settings, **overrides)
    store = service.aggregates("evaluations", Evaluation)
    evaluations = Evaluations(store, service.collection("deleted_rows"))
    waiting = WorkQueue(store, OPEN, service.collection("turns"))
    waiting_arms = WorkQueue(store, OPEN, service.collection("arm_turns"), only=ARMS)
    answers = Answers(service.collection("answers"))
    artifacts = Artifacts(service.objects)
    proxy = Proxy(service.peer("inference_proxy"), answer_seconds=settings.evaluator_answer_seconds)
    registry = service.peer("registry")
    asking = Asking(evaluations, settings.evaluator_parallel)
    by_answers = ByAnswers(settings, evaluations, answers, artifacts, proxy, registry, SUITES, asking)
    by_scores = ByScores(settings, evaluations, answers, artifacts, proxy, asking)
    asking_arms = Asking(evaluations, settings.evaluator_arm_parallel)
    judging = (
        by_answers,
        by_scores,
        ByAnswers(settings, evaluations, answers, artifacts, proxy, registry, ARM_SUITES, asking_arms),
        ByAnswers(settings, evaluations, answers, artifacts, proxy, registry, GENERATING_SUITES, asking),
    )
    evaluate = Evaluate(settings, evaluations, answers, artifacts, proxy, *judging)
    queue = Queue(evaluations, answers, artifacts)
    kind = Evaluating(evaluate)
    workers = [
        LeasedWorker(waiting, kind, policy(settings), f"{service.replica_id}-{slot}")
        for slot in range(settings.evaluator_slots)
    ]
    workers.append(LeasedWorker(waiting_arms, kind, policy(settings), f"{service.replica_id}-arms"))

    def wake() -> None:
        for worker in workers:
            worker.wake()

    service.bus.subscribe(subscriptions(queue, wake))
    service.on_start(evaluations.prepare)
    service.on_start(waiting.prepare)
    service.on_start(answers.prepare)

    async def sweep() -> None:
        while True:
            await queue.sweep()
            await queue.rest(SWEEP_SECONDS)

    service.background("sweep", sweep)
    service.watch_leases(store, waiting.query)
    service.sweep_orphans({"evaluations": evaluations.orphaned_evidence})
    for number, worker in enumerate(workers):
        service.background(f"worker-{number}", worker.run)
    return service.app([routes(evaluations, answers, artifacts)])

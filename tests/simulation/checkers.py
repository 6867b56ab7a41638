"""The invariants of a run, one pure function each, over its history and what lies in the stores at its end.

A checker returns what is wrong, in words; an empty list means that its invariant held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.simulation.arm_checkers import ARM_CHECKERS
from tests.simulation.history import Document, Entry, History, Write
from tests.simulation.turn_checker import ORDER_CHECKERS

JOB_ENDED = ("succeeded", "failed", "cancelled")
MODEL_ENDED = ("rejected", "retired")

EVENT_OF_JOB_STATE = {
    "running": "finetune.started.v1",
    "evaluating": "finetune.trained.v1",
    "succeeded": "finetune.succeeded.v1",
    "failed": "finetune.failed.v1",
    "cancelled": "finetune.cancelled.v1",
}
EVENT_OF_MODEL_STATE = {
    "production": "model.promoted.v1",
    "rejected": "model.rejected.v1",
    "retired": "model.retired.v1",
}

STOP_SECONDS = 12.0
"""How long work may go on after its claim was lost or its job ended: a lease, and a beat."""

ONE_MESSAGE_SECONDS = 18.0
"""How long one message may hold its partition while the database answers."""

ATTEMPTS = 8
"""Least number of attempts before a message is given up as exhausted."""


def no_accepted_work_is_lost(history: History) -> list[str]:
    """I1: accepted jobs exist, and every event was handled, is parked, or is a dead letter."""
    jobs = history.final("jobs")
    wrong = [f"I1: job {job} was accepted and is not there" for job in history.accepted if job not in jobs]
    if history.drained_at is not None:
        wrong += [f"I1: the upload made no job {job}" for job in history.expected if job not in jobs]
    cancelled = [job for job in history.cancelled if job in jobs and jobs[job]["state"] != "cancelled"]
    wrong += [f"I1: the cancellation of {job} was accepted; it is {jobs[job]['state']}" for job in cancelled]
    if history.drained_at is None:
        return wrong
    handled = {(one.service, one.event_id) for one in history.handled}
    put_aside = {
        (entry.headers["x-consumer"], entry.event_id) for entry in history.entries if entry.topic.endswith("-dlq")
    }
    waiting = {
        (service, message["headers"].get("ce_id", ""))
        for service, keys in history.parked.items()
        for key in keys
        for message in key["messages"]
    }
    done = handled | put_aside | waiting
    for service, types in history.subscribed.items():
        missed = {entry.event_id for entry in _events(history) if entry.headers["ce_type"] in types} - {
            event_id for who, event_id in done if who == service
        }
        wrong += [f"I1: {service} never handled event {event_id}" for event_id in sorted(missed)]
    return wrong


def one_effect_per_intent(history: History) -> list[str]:
    """I2: a job says each thing once and has one model, which is decided once."""
    wrong = []
    said: Counter[tuple[str, str]] = Counter()
    waits: dict[str, tuple[str, str]] = {}
    for write in history.writes:
        for record in _pushed(write):
            kind, data = record["envelope"]["type"], record["data"]
            if kind == "model.waiting.v1":  # said again only where something changed: for what it waits, or why
                wait = (data["waiting_for"], data["reason"])
                if waits.get(write.id) == wait:
                    wrong.append(f"I2: {write.id} recorded twice in a row that it waits for {wait}")
                waits[write.id] = wait
            elif kind != "finetune.started.v1":
                said[write.id, kind] += 1
    wrong += [f"I2: {key} recorded {kind} {times} times" for (key, kind), times in said.items() if times > 1]
    if len(history.final("jobs")) > history.intents:
        wrong.append(f"I2: {history.intents} jobs were asked for, there are {len(history.final('jobs'))}")
    models = Counter((model["job_id"], model["arm"] is None) for model in history.final("models").values())
    wrong += [f"I2: job {job} has {count} adapters or arms" for (job, _), count in models.items() if count > 1]
    for key, model in history.final("models").items():
        decided = [one["outcome"] for one in model["decisions"]]
        if decided.count("promote") > 1 or decided.count("reject") > 1 or {"promote", "reject"} <= set(decided[:1]):
            wrong.append(f"I2: {key} was decided as {decided}")
    jobs = history.final("jobs")
    for key, model in history.final("models").items():
        job = jobs.get(model["job_id"], {})
        ended = "succeeded by its arm" if job.get("setback") and job["state"] == "succeeded" else job.get("state")
        ends = {"production": ("succeeded",), "rejected": ("failed", "cancelled", "succeeded by its arm")}
        expected = ends.get(model["state"]) if model["arm"] is None else None
        if history.drained_at is not None and expected and ended not in expected:
            wrong.append(f"I2: {key} is {model['state']} and its job {model['job_id']} {ended}")
    if not history.faults:
        wrong += _repeated(history)
    return wrong


def _repeated(history: History) -> list[str]:
    published = Counter(entry.event_id for entry in _events(history) if entry.headers.get("ce_origin"))
    wrong = [f"I2: without a fault event {key} was published {n} times" for key, n in published.items() if n > 1]
    given = Counter((one.group, one.entry.topic, one.entry.partition, one.entry.offset) for one in history.deliveries)
    return wrong + [f"I2: without a fault {key} was delivered {n} times" for key, n in given.items() if n > 1]


def one_committing_attempt(history: History) -> list[str]:
    """I3: a fence rises by one and after its lease is over, and a worker writes under its own claim."""
    wrong = []
    for write in history.writes:
        before, after = write.before, write.after
        if write.collection not in ("jobs", "arm_fits", "parked") or before is None or after is None:
            continue
        old, new = before["lease"], after["lease"]
        if new["fence"] not in (old["fence"], old["fence"] + 1):
            wrong.append(f"I3: the fence of {write.id} went from {old['fence']} to {new['fence']}")
        if new["fence"] == old["fence"] + 1 and old["until_ms"] >= write.server_ms:
            wrong.append(f"I3: {write.id} was claimed while {old['owner']} held it for {old['until_ms']}")
        if after["version"] < before["version"]:
            wrong.append(f"I3: the version of {write.id} fell")
        by_its_worker = write.collection == "jobs" and new["fence"] == old["fence"] and _is_work(before, after)
        if by_its_worker and not _held_by(old["owner"], write.by, history, write.id, old["fence"]):
            wrong.append(f"I3: {write.by} wrote to {write.id}, which {old['owner']} holds (fence {old['fence']})")
        if write.collection != "parked" and new["unfinished"] not in _unfinished_after(old, new):
            wrong.append(f"I3: {write.id} went from {old['unfinished']} unfinished claims to {new['unfinished']}")
    return wrong + _worked_too_long(history)


def _unfinished_after(old: Document, new: Document) -> tuple[int, ...]:
    """How many claims of a job may be unfinished after a write: a claim adds one, who gives it back leaves none."""
    if new["fence"] == old["fence"] + 1:
        return (old["unfinished"] + 1,)
    return (0,) if not new["owner"] else (old["unfinished"], 0)


def _is_work(before: Document, after: Document) -> bool:
    """Whether only the worker who holds the claim may make this change."""
    into = after["state"] != before["state"] and after["state"] in ("running", "evaluating")
    new_checkpoint = after["checkpoint"] is not None and after["checkpoint"] != before["checkpoint"]
    return into or new_checkpoint or after["lease"].get("failures", 0) != before["lease"].get("failures", 0)


def _held_by(owner: str, by: str, history: History, job: str, fence: int) -> bool:
    if owner:
        return owner == by
    claims = [
        write.after["lease"]["owner"]
        for write in history.writes
        if write.id == job and write.after and write.before and write.after["lease"]["fence"] == fence
    ]
    return by in claims


def _worked_too_long(history: History) -> list[str]:
    """Training goes on at most `STOP_SECONDS` after its claim was lost, or its job ended; stops do not count."""
    wrong = []
    for worked in history.worked:
        lost = None
        for write in history.writes:
            if write.id == worked.job_id and write.after and write.at < worked.at:
                owner = write.after["lease"]["owner"]
                ended = write.after["state"] in JOB_ENDED
                if (owner not in ("", worked.by) or ended) and lost is None:
                    lost = write.at
                if owner == worked.by and not ended:
                    lost = None
        if lost is None:
            continue
        wakes = [fault.at for fault in history.faults if fault.kind == "went on" and fault.target == worked.by]
        since = max([lost, *(at for at in wakes if at <= worked.at)])
        if worked.at - since > STOP_SECONDS:
            wrong.append(f"I3: {worked.by} still trained {worked.job_id} at {worked.at:.1f}, lost at {lost:.1f}")
    return wrong[:1]


def terminal_states_never_change(history: History) -> list[str]:
    """I4: what has ended stays as it ended."""
    wrong = []
    for write in history.writes:
        if write.before is None or write.after is None or write.collection not in ("jobs", "models"):
            continue
        ended = JOB_ENDED if write.collection == "jobs" else MODEL_ENDED
        was, now = write.before["state"], write.after["state"]
        if was in ended and now != was:
            wrong.append(f"I4: {write.id} went from {was} to {now}")
        if was == "production" and now not in ("production", "retired"):
            wrong.append(f"I4: {write.id} went from {was} to {now}")
    return wrong


def one_event_per_state_change(history: History) -> list[str]:
    """I5: each change of state is written together with its event, and streams have no gap and keep their order."""
    wrong = []
    published: dict[str, float] = {}
    for entry in history.entries:
        published.setdefault(entry.event_id, entry.at)
    for write in history.writes:
        if write.collection not in ("jobs", "models") or write.after is None:
            continue
        kinds = [record["envelope"]["type"] for record in _pushed(write)]
        expected = _expected(write)
        if kinds != expected and not (kinds == ["finetune.started.v1"] and write.after["state"] == "running"):
            was = write.before["state"] if write.before else "nothing"
            wrong.append(f"I5: {write.id} went from {was} to {write.after['state']} with the events {kinds}")
        kept = {record["id"] for record in write.after["outbox"]}
        gone = [record for record in (write.before or {"outbox": []})["outbox"] if record["id"] not in kept]
        wrong += [
            f"I5: {record['envelope']['type']} left the outbox of {write.id} before it was published"
            for record in gone
            if published.get(record["id"], float("inf")) > write.at
        ]
    return wrong + _gaps(history)


def _expected(write: Write) -> list[str]:
    assert write.after is not None
    if write.before is None:
        return ["finetune.requested.v1" if write.collection == "jobs" else "model.registered.v1"]
    waits = ["model.waiting.v1"] * (write.after.get("waits", 0) - write.before.get("waits", 0))
    if write.before["state"] == write.after["state"]:
        return [*waits, *_without_state(write.before, write.after)]
    table = EVENT_OF_JOB_STATE if write.collection == "jobs" else EVENT_OF_MODEL_STATE
    event = table.get(write.after["state"])
    return [*([event] if event else []), *_without_state(write.before, write.after), *waits]


def _without_state(before: Document, after: Document) -> list[str]:
    """The events of what changed beside the state."""
    became = {
        "finetune.adapter_deleted.v1": [one.get("adapter_files") for one in (before, after)] == ["unwanted", "deleted"],
        "finetune.arm_fitted.v1": "setback" in after and bool(after["arm"]["made"]) > bool(before["arm"]["made"]),
        "model.deleted.v1": before.get("deleted_at") != after.get("deleted_at"),
    }
    return [event for event, is_so in became.items() if is_so]


def _gaps(history: History) -> list[str]:
    wrong = []
    last: dict[str, int] = {}
    ids: dict[tuple[str, int], str] = {}
    for entry in _events(history):
        if not entry.headers.get("ce_origin"):
            continue
        stream, seq = entry.stream, int(entry.headers["ce_seq"])
        if ids.setdefault((stream, seq), entry.event_id) != entry.event_id:
            wrong.append(f"I5: two events of {stream} have the number {seq}")
        elif seq > last.get(stream, 0):
            if seq != last.get(stream, 0) + 1:
                wrong.append(f"I5: in {stream} number {seq} follows {last.get(stream, 0)}")
            last[stream] = seq
    return wrong


def artifacts_are_whole(history: History) -> list[str]:
    """I6, I7: an adapter is whole while its job and model live, and has the bytes of an undisturbed run."""
    wrong = []
    for write in history.writes:
        if write.collection != "jobs" or write.after is None or not write.after["adapter"]:
            continue
        if write.before is not None and write.before["adapter"] == write.after["adapter"]:
            continue
        manifest = write.after["adapter"]["manifest"]
        folder = manifest["key"].rpartition("/")[0]
        stored = {key: at for key, (at, _) in history.stored.items() if key.startswith(folder) and at <= write.at}
        if manifest["key"] not in stored or len(stored) < 4:
            wrong.append(f"I6: {write.id} names an adapter of which only {sorted(stored)} is stored")
    jobs = history.final("jobs")
    for job, weights in history.weights.items():
        adapter = jobs.get(job, {}).get("adapter")
        if adapter and history.learnt.get(adapter["adapter_id"]) != weights:
            wrong.append(f"I7: the adapter of {job} is not what an undisturbed run makes")
    wrong += [
        f"I6: {key} is {model['state']} and files of its adapter were removed"
        for key, model in history.final("models").items()
        if model["state"] not in MODEL_ENDED and _lacks_files(model["adapter_manifest"]["key"], history)
    ]
    corrupt = [job for job in jobs.values() if job["error"] and "sha256" in job["error"]["message"]]
    return wrong + [f"I7: {job['_id']} failed for a spoilt checkpoint" for job in corrupt]


def _lacks_files(manifest: str, history: History) -> bool:
    folder = manifest.rpartition("/")[0]
    return any(key.startswith(f"{folder}/") for key in history.removed)


def poison_blocks_only_its_key(history: History) -> list[str]:
    """I8: no message holds its partition for long, dead letters are as they came, and keys keep their order."""
    wrong = []
    originals = {(entry.topic, entry.partition, entry.offset): entry for entry in history.entries}
    for entry in history.entries:
        if entry.topic.endswith("-dlq"):
            place = (entry.headers["x-original-topic"], int(entry.headers["x-original-partition"]))
            original = originals.get((*place, int(entry.headers["x-original-offset"])))
            if original is None or (original.key, original.value) != (entry.key, entry.value):
                wrong.append(f"I8: the dead letter {entry.topic}/{entry.offset} is not the message as it came")
            elif any(entry.headers.get(name) != value for name, value in original.headers.items() if name[:2] != "x-"):
                wrong.append(f"I8: the dead letter {entry.topic}/{entry.offset} lost headers of the message")
            if entry.headers["x-error-code"] == "exhausted" and int(entry.headers["x-attempts"]) < ATTEMPTS:
                wrong.append(
                    f"I8: {entry.topic}/{entry.offset} was given up after {entry.headers['x-attempts']} attempts"
                )
    away = [fault for fault in history.faults if fault.kind in ("away", "cut off from mongo", "cut off from kafka")]
    stopped = {fault.target for fault in history.faults if fault.kind.startswith("stop")}
    for one in history.deliveries:
        took = (one.ended or one.began) - one.began
        if took > ONE_MESSAGE_SECONDS and one.member not in stopped and not away and not history.slow:
            wrong.append(f"I8: {one.member} spent {took:.0f} s on {one.entry.topic}/{one.entry.offset}")
    return wrong + _order(history)


def _order(history: History) -> list[str]:
    """First effects of one key come in the order of the log, dead letters aside."""
    wrong = []
    put_aside = {entry.event_id for entry in history.entries if entry.topic.endswith("-dlq")}
    first: dict[str, Entry] = {}
    for entry in _events(history):
        first.setdefault(entry.event_id, entry)
    effects: dict[tuple[str, str, bytes | None], list[Entry]] = {}
    seen = set()
    for done in history.handled:
        if (done.service, done.event_id) in seen or done.event_id in put_aside or done.event_id not in first:
            continue
        seen.add((done.service, done.event_id))
        entry = first[done.event_id]
        effects.setdefault((done.service, entry.topic, entry.key), []).append(entry)
    for (service, topic, key), entries in effects.items():
        if any(later.offset < earlier.offset for earlier, later in pairwise(entries)):
            wrong.append(f"I8: {service} handled {topic}/{key!r} in the order {[one.offset for one in entries]}")
    return wrong


def only_proven_adapters_are_promoted(history: History) -> list[str]:
    """I11: what enters production passed the gate, and a replica that verified it holds it."""
    wrong = []
    for write in history.writes:
        before, after = write.before, write.after
        if write.collection != "models" or after is None or after["state"] != "production":
            continue
        if before is not None and before["state"] == "production":
            continue
        holders = {one["replica_id"] for one in after["replicas"]}
        if after["arm"] is None and not any((after["adapter_id"], replica) in history.proven for replica in holders):
            wrong.append(f"I11: {write.id} was promoted and no replica of {sorted(holders)} proved its adapter")
        promotion, evaluation = after["promotion"], after["evaluation"]
        if promotion is None or evaluation is None or (promotion["by"] == "gate" and evaluation["verdict"] != "pass"):
            wrong.append(f"I11: {write.id} was promoted without passing")
    return wrong


def everything_drains(history: History) -> list[str]:
    """I19: once faults stop, nothing is left to do within two leases."""
    if history.drained_at is None:
        return [f"I19: not drained after faults stopped at {history.quiet_from:.0f}: {history.left}"]
    return []


def servers_answer(history: History) -> list[str]:
    """Before all else: no server was asked what its simulation lacks, which the product may take for an outage."""
    return [f"unanswered: {first}" for first in history.unanswered[:1]]


CHECKERS: tuple[Callable[[History], list[str]], ...] = (
    servers_answer,
    no_accepted_work_is_lost,
    one_effect_per_intent,
    one_committing_attempt,
    *ORDER_CHECKERS,
    terminal_states_never_change,
    one_event_per_state_change,
    artifacts_are_whole,
    poison_blocks_only_its_key,
    only_proven_adapters_are_promoted,
    *ARM_CHECKERS,
    everything_drains,
)


def violations(history: History) -> list[str]:
    """All that is wrong with a run."""
    return [wrong for check in CHECKERS for wrong in check(history)]


def _events(history: History) -> Iterator[Entry]:
    return (entry for entry in history.entries if not entry.topic.endswith("-dlq"))


def _pushed(write: Write) -> list[Document]:
    if write.after is None or write.collection not in ("jobs", "models"):
        return []
    before = {record["id"] for record in write.before["outbox"]} if write.before else set()
    return [record for record in write.after["outbox"] if record["id"] not in before]

"""SIGTERM to a real process: no new work at once, what is under way ends, nothing stays behind."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx2
import pytest

from chassis.settings import ServiceSettings
from eventbus import AggregateStore
from ingest.domain import File
from ingest.settings import Settings as IngestSettings
from schemas import FileUploaded, LabelsPublished, ObjectRef
from stores import mongo
from testkit import Space, eventually
from tests.chaos.processes import process, ready
from tests.chaos.trainer_kills import JOB_ID, TENANT, Trainer, Watched, queue_job
from trainer.domain import Job

STOP_SECONDS = 20.0
ROW = b'{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a"}]}\n'

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class SlowForm:
    """An upload whose second half comes when told."""

    content_type = "multipart/form-data; boundary=b"

    def __init__(self) -> None:
        self.half = asyncio.Event()
        self.rest = asyncio.Event()

    async def __aiter__(self):
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + ROW
        self.half.set()
        await self.rest.wait()
        yield ROW * 50 + b"\r\n--b--\r\n"


async def test_a_service_that_is_told_to_stop_ends_what_it_began_and_takes_nothing_new(space: Space) -> None:
    """An upload is under way when SIGTERM comes: it is answered and its event published, but neither parsed here nor
    is an event consumed that comes meanwhile; no lease is left, and another replica goes on at once."""
    settings = space.settings(IngestSettings, "ingest", stop_timeout=STOP_SECONDS, ingest_lease_seconds=120)
    database = mongo.connect(settings, "ingest")
    files = AggregateStore(database["files"], File, "ingest", lambda: None)
    reference = ObjectRef(bucket=settings.objects_bucket, key="none", sha256="0" * 64, size=1)
    labels = LabelsPublished(tenant_id=TENANT, project_id="proj_1", publication=1, rows=3, records=reference)
    with process(space, "ingest", settings) as (running, url):
        await ready(url)
        async with (
            space.publisher("labeling") as publish,
            httpx2.AsyncClient(base_url=url, headers=space.headers("ingest", TENANT), timeout=60) as http,
        ):
            form = SlowForm()
            content_type = {"content-type": form.content_type}
            upload = asyncio.create_task(http.post("/v1/files", content=form, headers=content_type))
            await asyncio.wait_for(form.half.wait(), 20)
            running.send_signal(signal.SIGTERM)
            told_at = time.monotonic()
            await eventually(lambda: _refuses(url), within=5)
            await publish(labels)
            form.rest.set()
            answer = await upload
            assert answer.status_code == 200, answer.text
        await eventually(lambda: running.poll() is not None, within=STOP_SECONDS + 5)
        took = time.monotonic() - told_at
    assert running.returncode in (0, -signal.SIGTERM)
    assert took < STOP_SECONDS + 2
    print(f"\nSIGTERM to end: {took:.1f} s, deadline {STOP_SECONDS:.0f} s")

    [file] = await files.find(TENANT)
    assert (file.id, file.state) == (answer.json()["id"], "uploaded")
    assert file.lease.until_ms == 0
    assert await files.collection.count_documents({"outbox.0": {"$exists": True}}) == 0
    assert await database["leases"].count_documents({}) == 0
    async with space.probe("files") as seen:
        # At least once: the relay may have been stopped between the broker's answer and the removal.
        await eventually(lambda: {event.file_id for event in seen.of(FileUploaded)} == {file.id})

    with process(space, "ingest", settings) as (_, url):

        async def both_are_taken_up() -> bool:
            found = await files.find(TENANT)
            return len(found) == 2 and all(one.state != "uploaded" for one in found)

        await eventually(both_are_taken_up, within=90)


async def _refuses(url: str) -> bool:
    try:
        async with httpx2.AsyncClient() as http:
            return (await http.get(f"{url}/readyz", timeout=5)).status_code == 503
    except httpx2.TransportError:
        return True


async def test_a_trainer_that_is_told_to_stop_keeps_every_step_and_lets_another_go_on_at_once(
    space: Space, tiny_models: Path
) -> None:
    with Trainer(space, tiny_models, trainer_lease_seconds=600, stop_timeout=15, trainer_save_every_steps=1000) as one:
        watched = Watched(space, one)
        await queue_job(space, watched.jobs, 400)
        one.start()
        await eventually(watched.last_step, within=120)
        told_at = time.monotonic()
        one.terminate()
        print(f"\nSIGTERM to end: {time.monotonic() - told_at:.1f} s, deadline 15 s")
        assert time.monotonic() - told_at < 17
        job: Job = await watched.job()
        assert job.state == "running"
        assert job.lease.until_ms == 0
        assert job.checkpoint is not None
        assert job.checkpoint.step >= await watched.last_step() > 0
        database = mongo.connect(space.settings(ServiceSettings, "trainer"), "trainer")
        assert await database["leases"].count_documents({}) == 0
        assert await watched.jobs.collection.count_documents({"outbox.0": {"$exists": True}}) == 0

        one.start()
        resumed = f"Training resumed from step {job.checkpoint.step} (attempt 2)."

        async def goes_on() -> bool:
            return await watched.events.find_one({"job_id": JOB_ID, "message": resumed}) is not None

        await eventually(goes_on, within=60)

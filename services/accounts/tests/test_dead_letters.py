"""What consumers gave up: listed, shown and sent back by the operator, over the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from accounts_harness import OPERATOR, accounts, bearer, tenant
from aiokafka import AIOKafkaProducer

from chassis.errors import Invalid
from chassis.settings import ServiceSettings
from eventbus import DeadLetter, DeadLetters
from runtime import Service
from schemas import FileDeleted
from testkit import Space, eventually

URL = "/v1/organization/dead_letters"


class Consumers:
    """Two services that read the same events; one of them has a bug until it is mended."""

    def __init__(self, space: Space) -> None:
        self.broken = True
        self.handled: dict[str, list[str]] = {"registry": [], "labeling": []}
        self.apps = []
        for name in self.handled:
            service = Service(name, space.settings(ServiceSettings, name))
            service.bus.subscribe({FileDeleted: self._handler(name)})
            self.apps.append(service.app([]))

    def _handler(self, name: str):  # type: ignore[no-untyped-def]
        async def handle(event: FileDeleted) -> None:
            if name == "registry" and self.broken:
                raise Invalid(f"{event.file_id} is poison", code="poison")
            self.handled[name].append(event.file_id)

        return handle


@pytest.mark.parametrize("everything", [False, True])
async def test_dead_letters_are_replayed_to_their_consumer_alone(
    space: Space, tmp_path: Path, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, replayed = DeadLetters.replay, list[str]()

    async def remember(self: DeadLetters, letter: DeadLetter) -> None:
        replayed.append(letter.id)
        await replay(self, letter)

    monkeypatch.setattr(DeadLetters, "replay", remember)
    consumers = Consumers(space)
    operator = bearer(OPERATOR)
    async with accounts(space, tmp_path) as http, space.publisher("ingest") as publish:
        first, second = (app.router.lifespan_context(app) for app in consumers.apps)
        async with first, second:

            async def letters(**wanted: str) -> list[dict[str, object]]:
                return (await http.get(URL, params=wanted, headers=operator)).json()["data"]

            assert await letters() == []
            for number in range(3):
                await publish(FileDeleted(tenant_id="tenant_a", file_id=f"file-{number}"))
            await eventually(lambda: len(consumers.handled["labeling"]) == 3)

            async def all_three() -> bool:
                return len(await letters()) == 3

            await eventually(all_three)
            listed = await letters(consumer="registry", code="poison")
            assert {letter["reason"] for letter in listed} == {f"file-{number} is poison" for number in range(3)}
            assert await letters(consumer="labeling") == []
            letter = (await http.get(f"{URL}/{listed[0]['id']}", headers=operator)).json()
            assert letter["headers"]["ce_type"] == "file.deleted.v1"
            assert letter["key"] in letter["value"]

            consumers.broken = False
            if everything:
                done = await http.post(f"{URL}/replay", json={"consumer": "registry"}, headers=operator)
                assert done.json()["replayed"] == 3
                assert replayed == ["files.0", "files.1", "files.2"]  # the order they died in
            else:
                for one in listed:
                    done = await http.post(f"{URL}/{one['id']}/replay", headers=operator)
                    assert done.json()["replayed_at"]
            await eventually(lambda: sorted(consumers.handled["registry"]) == ["file-0", "file-1", "file-2"])
            assert await letters() == []
            assert len(consumers.handled["labeling"]) == 3


async def test_a_letter_that_was_cut_is_not_replayed_and_the_others_are(space: Space, tmp_path: Path) -> None:
    operator = bearer(OPERATOR)
    async with accounts(space, tmp_path) as http:
        settings = space.settings(ServiceSettings, "accounts")
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
            for number in range(3):
                cut = [("x-cut-from", b"1048000")] if number == 1 else []
                headers = [("x-original-topic", b"files"), ("x-consumer", b"registry"), *cut]
                await producer.send_and_wait(f"{settings.topic_prefix}files-dlq", b"{", headers=headers)
        done = await http.post(f"{URL}/replay", json={}, headers=operator)
        assert done.json() == {"object": "list", "replayed": 2, "skipped": ["files.1"]}
        refused = await http.post(f"{URL}/files.1/replay", headers=operator)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "dead_letter_cut")
        left = (await http.get(URL, headers=operator)).json()["data"]
        assert [letter["id"] for letter in left] == ["files.1"]


async def test_only_the_operator_sees_dead_letters(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        owner = bearer((await tenant(http))["api_key"])
        assert (await http.get(URL, headers=owner)).status_code == 403
        assert (await http.post(f"{URL}/replay", json={}, headers=owner)).status_code == 403
        absent = await http.get(f"{URL}/files.99", headers=bearer(OPERATOR))
        assert (absent.status_code, absent.json()["error"]["code"]) == (404, "not_found")

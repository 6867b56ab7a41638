"""What `make house` counts, each on a few lines that have it and a few that only look like it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.architecture.house import House, Module, base_readers, pagings, workers

HEAD = """
class Jobs:
    async def run(self):
        while True:
"""


def house(source: str) -> House:
    return House([Module(Path("services/trainer/src/trainer/one.py"), ast.parse(source))])


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("facts['context_length']", 1),
        ("facts.get('context_length')", 1),
        ("Hyperparameter('context_length', 32, 131_072)", 0),
        ("class Base:\n    chat_template: str\n    context_length: int\n    vocab_size: int", 1),
        ("class Base:\n    context_length: int", 0),
    ],
)
def test_a_reader_of_base_json_asks_for_its_keys_or_has_its_fields(source: str, counted: int) -> None:
    assert len(list(base_readers(house(source)))) == counted


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        (HEAD + "            job = await self.jobs.claim()", 1),
        (HEAD + "            await self._one()\n    async def _one(self):\n        await self.jobs.claim()", 1),
        (
            HEAD + "            await self._purge()\n    async def _purge(self):\n"
            "        while job := await self.jobs.claim():\n            await self.objects.delete_adapter(job)",
            0,
        ),
        (HEAD + "            await self._one()\n    async def _one(self):\n        await self.jobs.look()", 0),
    ],
)
def test_a_worker_claims_to_do_and_a_sweep_to_delete(source: str, counted: int) -> None:
    assert len(list(workers(house(source)))) == counted


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ("items[1 + items.index(after) :][: limit + 1]", 1),
        ("items.sort()", 1),
        ("page(behind(items, after, missing), limit=limit)", 0),
    ],
)
def test_a_page_is_cut_where_its_end_is_taken(body: str, counted: int) -> None:
    assert len(list(pagings(house(f"def listed(items, limit, after):\n    return {body}")))) == counted

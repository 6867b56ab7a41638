"""Indexes change with releases."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import OperationFailure

from chassis.settings import ServiceSettings
from stores.mongo import connect, ensure_index
from testkit import Space


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"expireAfterSeconds": 60}, {"expireAfterSeconds": 600}),
        ({}, {"unique": True}),
        ({"name": "by_at", "unique": True}, {"name": "by_at"}),
    ],
)
async def test_an_index_with_other_options_takes_the_place_of_an_older_one(
    space: Space, before: dict[str, Any], after: dict[str, Any]
) -> None:
    records = connect(space.settings(ServiceSettings, "ingest"), "ingest")["records"]
    await records.create_index("at", **before)
    for _ in range(2):
        await ensure_index(records, "at", **after)
    indexes = await records.index_information()
    [made] = [index for name, index in indexes.items() if name != "_id_"]
    assert {name: made.get(name) for name in ("expireAfterSeconds", "unique", "sparse")} == {
        name: after.get(name) for name in ("expireAfterSeconds", "unique", "sparse")
    }


async def test_an_index_that_the_documents_do_not_allow_is_an_error(space: Space) -> None:
    records = connect(space.settings(ServiceSettings, "ingest"), "ingest")["records"]
    await records.insert_many([{"at": 1}, {"at": 1}])
    with pytest.raises(OperationFailure, match="duplicate"):
        await ensure_index(records, "at", unique=True)

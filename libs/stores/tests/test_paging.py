"""Pages come in one order, and none misses or repeats a document."""

from __future__ import annotations

import pytest

from chassis.errors import NotFound
from chassis.settings import ServiceSettings
from stores.mongo import connect
from stores.paging import NEWEST_FIRST, OLDEST_FIRST, page
from testkit import Space


@pytest.mark.parametrize(
    ("order", "expected"), [(NEWEST_FIRST, "daecb"), (OLDEST_FIRST, "bcead"), ([("n", 1)], "badce")]
)
async def test_pages_follow_each_other_without_gap_or_repetition(
    space: Space, order: list[tuple[str, int]], expected: str
) -> None:
    documents = connect(space.settings(ServiceSettings, "registry"), "registry")["things"]
    numbers = {"a": 2, "b": 1, "c": 4, "d": 3, "e": 5}
    of_one_second = {"a": 2, "b": 1, "c": 1, "d": 2, "e": 1}
    await documents.insert_many(
        [{"_id": i, "n": n, "created_at": of_one_second[i], "of": "me"} for i, n in numbers.items()]
    )
    await documents.insert_one({"_id": "z", "n": 3, "created_at": 1, "of": "somebody"})
    seen: list[str] = []
    for _ in range(4):
        after = {"_id": seen[-1], "of": "me"} if seen else None
        seen += [str(one["_id"]) for one in await page(documents, {"of": "me"}, order, limit=2, after=after)]
    assert "".join(seen) == expected
    assert len(await page(documents, {"of": "me"}, order, limit=0)) == 5
    with pytest.raises(NotFound, match="nothing there") as refused:
        await page(documents, {"of": "me"}, order, limit=2, after={"_id": "z", "of": "me"}, missing="nothing there")
    assert refused.value.param == "after"

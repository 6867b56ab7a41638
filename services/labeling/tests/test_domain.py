"""What a project decides by itself."""

from __future__ import annotations

import pytest

from chassis.errors import Conflict
from labeling.domain import Project
from schemas import ObjectRef


def test_answers_read_for_other_labels_are_not_published() -> None:
    asked = Project(id="p", tenant_id="tenant_a", created_at=0, name="", tasks=1, labels=["a"])
    records = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
    with pytest.raises(Conflict, match="publish again"):
        asked.publish(records, 1, ["b"])
    assert (asked.publications, asked.take_pending()) == (0, [])
    asked.publish(records, 1, ["a"])
    assert asked.publications == 1

"""What is counted of a history is counted whatever else was sent."""

from __future__ import annotations

import pytest

from tests.chaos.leftovers import is_of_arm


@pytest.mark.parametrize(
    ("value", "of_arm"),
    [
        (b'{"model_id": "ft:b:o::1@head"}', True),
        (b'{"model_id": "ft:b:o::1@nearest"}', True),
        (b'{"model_id": "ft:b:o::1"}', False),
        (b'{"job_id": "ftjob-1"}', False),
        (b'{"file_id": nonsense', False),
        (b'{"file_id": "\xff"}', False),
        (b"[1]", False),
        (b"", False),
    ],
)
def test_an_event_of_an_arm_is_told_from_all_others_and_from_what_is_no_event(value: bytes, of_arm: bool) -> None:
    assert is_of_arm(value) == of_arm

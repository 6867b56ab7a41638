"""What the checkers of arms refuse, and what they let pass."""

from __future__ import annotations

import pytest

from tests.simulation.arm_checkers import (
    ARM_CHECKERS,
    adapters_give_way_to_arms_that_serve,
    arm_files_are_kept_while_wanted,
    arms_are_decided,
    names_answer_as_jobs_say,
    rows_stay_for_models_alone,
)
from tests.simulation.history import Fault, History, Write

JOB = "ftjob-1"
NAME = "ft:base:acme::1"
MANIFEST_BODY = "ab" * 32
ARM_KEYS = [f"tenants/a/arms/{JOB}/1/{name}" for name in ("arm", "answers", "fingerprint", "manifest.json")]
MADE = {"kind": "head", "arm_id": f"arm-{MANIFEST_BODY[:24]}", "manifest": {"key": ARM_KEYS[-1]}}


def ended(
    *,
    state: str = "succeeded",
    arm: str = "serving",
    files: str = "kept",
    name: str | None = NAME,
    adapter: str = "rejected",
    of_arm: str = "production",
    answers: str | None = f"{NAME}@head",
    deleted_at: int | None = None,
    fit: str = "done",
) -> History:
    """A job whose adapter was refused and whose arm answers, or what is said otherwise."""
    job = {
        "state": state,
        "fine_tuned_model": name,
        "arm": {"state": arm, "files": files, "made": MADE},
    }
    versions = {
        NAME: {"job_id": JOB, "state": adapter, "arm": None, "deleted_at": deleted_at},
        f"{NAME}@head": {"job_id": JOB, "state": of_arm, "arm": {"kind": "head"}, "deleted_at": deleted_at},
    }
    documents: list[tuple[str, str, dict[str, object]]] = [
        ("jobs", JOB, job),
        ("arm_fits", JOB, {"state": fit}),
        *(("models", key, one) for key, one in versions.items()),
    ]
    history = History(writes=[Write(9, 9, "", where, key, None, it, "w") for where, key, it in documents])
    history.stored = dict.fromkeys(ARM_KEYS, (1.0, MANIFEST_BODY))
    history.drained_at, history.routes = 10.0, {JOB: answers}
    return history


def test_a_job_that_its_arm_answers_for_is_let_pass() -> None:
    assert [wrong for check in ARM_CHECKERS[:4] for wrong in check(ended())] == []


@pytest.mark.parametrize(
    "history", [ended(state="awaiting_arm"), ended(arm="fitted"), ended(fit="to_fit"), ended(of_arm="candidate")]
)
def test_what_is_not_decided_in_the_end_is_refused(history: History) -> None:
    assert len(arms_are_decided(history)) == 1


@pytest.mark.parametrize(
    "history",
    [
        ended(state="running", arm="over", of_arm="rejected", answers=None),
        ended(state="failed", name=None, arm="over"),
        ended(arm="over", of_arm="rejected", answers=None),
        ended(name=None),
        ended(answers=None),
        ended(answers=NAME),
        ended(arm="over"),
    ],
)
def test_a_name_that_does_not_answer_as_its_job_says_is_refused(history: History) -> None:
    assert names_answer_as_jobs_say(history) != []


def test_a_model_that_was_taken_back_may_answer_no_more() -> None:
    taken_back = ended(arm="over", files="deleted", of_arm="retired", answers=None, deleted_at=9)
    assert names_answer_as_jobs_say(taken_back) == []


def gave_way(*states: str) -> History:
    """An adapter that was refused for an arm, after that was in these states."""
    arm = {"job_id": JOB, "arm": {"kind": "head"}}
    before = {"job_id": JOB, "arm": None, "state": "candidate", "evaluation": None}
    after = {**before, "state": "rejected", "evaluation": {"beaten_by": "head"}}
    writes = [
        Write(at, at, "", "models", f"{NAME}@head", None, {**arm, "state": it}, "w") for at, it in enumerate(states)
    ]
    return History(writes=[*writes, Write(9, 9, "", "models", NAME, before, after, "w")])


@pytest.mark.parametrize(
    ("states", "wrong"), [(("candidate", "production"), 0), (("candidate", "rejected"), 1), ((), 1)]
)
def test_an_adapter_gives_way_to_an_arm_that_served(states: tuple[str, ...], wrong: int) -> None:
    assert len(adapters_give_way_to_arms_that_serve(gave_way(*states))) == wrong


@pytest.mark.parametrize(
    ("arm", "files", "removed", "others", "wrong"),
    [
        ("serving", "kept", [], [], 0),
        ("serving", "kept", ARM_KEYS[:1], [], 1),
        ("over", "kept", [], [], 1),
        ("over", "deleted", ARM_KEYS, [], 0),
        ("over", "deleted", ARM_KEYS[:3], [], 1),
        ("serving", "kept", [], [f"tenants/a/arms/{JOB}/2/arm"], 1),
    ],
)
def test_files_of_an_arm_are_there_exactly_while_it_is_wanted(
    arm: str, files: str, removed: list[str], others: list[str], wrong: int
) -> None:
    history = ended(arm=arm, files=files)
    history.stored |= dict.fromkeys(others, (1.0, ""))
    history.removed.update(removed)
    assert len(arm_files_are_kept_while_wanted(history)) == wrong
    history.faults.append(Fault(0, "kill"))
    assert len(arm_files_are_kept_while_wanted(history)) == (0 if others else wrong)


def test_an_arm_that_is_named_before_it_is_stored_is_refused() -> None:
    history = ended()
    history.stored[ARM_KEYS[0]] = (9.5, "")
    assert len(arm_files_are_kept_while_wanted(history)) == 1


@pytest.mark.parametrize(
    ("answers", "held", "wrong"), [(NAME, True, 0), (NAME, False, 1), (None, True, 1), (None, False, 0)]
)
def test_rows_stay_exactly_while_a_model_answers(answers: str | None, held: bool, wrong: int) -> None:
    history = ended(answers=answers)
    history.rows = {JOB: held}
    assert len(rows_stay_for_models_alone(history)) == wrong

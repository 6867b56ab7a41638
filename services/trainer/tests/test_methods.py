"""The seam of training methods: each of the folder is offered, explained, and honours or refuses what it is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chassis.errors import Invalid
from trainer import api
from trainer.run import methods
from trainer.run.config import RunConfig
from trainer.run.hyperparameters import OF_ALL_METHODS, resolve
from trainer.run.methods import METHODS, Method, method_of

FOLDER = Path(methods.__file__).parent
SERVICE = Path(__file__).parents[1]
EVERY = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def test_every_file_of_the_folder_is_a_method_that_is_offered() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "method"}
    assert {type(method).__module__.rpartition(".")[2] for method in METHODS.values()} == files
    assert set(api.MethodAsked.model_fields) == {"type", *METHODS}


@EVERY
def test_a_method_is_explained_where_a_person_would_look(method: Method) -> None:
    row = next(
        line for line in (SERVICE / "README.md").read_text().splitlines() if line.startswith(f"| `{method.name}`")
    )
    for one in method.hyperparameters:
        assert f"`{one.name}`" in row
    assert f"{method.name}," in (SERVICE.parents[1] / "cli/src/sartor_cli/job_commands.py").read_text()


@EVERY
def test_a_method_chooses_what_is_auto_and_refuses_what_it_does_not_know(method: Method) -> None:
    auto = resolve(method.hyperparameters, 100, {one.name: "auto" for one in method.hyperparameters})
    assert auto == resolve(method.hyperparameters, 100)
    assert {"n_epochs", "batch_size", "learning_rate_multiplier"} <= set(auto)
    foreign = {one.name for other in METHODS.values() for one in other.hyperparameters}
    for name in {*foreign, "beta"} - {one.name for one in method.hyperparameters}:
        with pytest.raises(Invalid, match="can be set") as refused:
            resolve(method.hyperparameters, 100, {name: 1})
        assert refused.value.param == f"hyperparameters.{name}"
        for known in method.hyperparameters:
            assert known.name in refused.value.message


@EVERY
@pytest.mark.parametrize("wrong", [True, "8", -1, float("nan"), 10**9, [], {}])
def test_a_value_that_cannot_be_is_refused_by_the_name_of_its_field(method: Method, wrong: object) -> None:
    for one in method.hyperparameters:
        with pytest.raises(Invalid) as refused:
            resolve(method.hyperparameters, 100, {one.name: wrong})
        assert refused.value.param == f"hyperparameters.{one.name}"


@EVERY
def test_what_a_method_is_told_decides_which_checkpoints_fit(method: Method) -> None:
    own = {one.name: 64.0 for one in method.hyperparameters if one.name not in OF_ALL_METHODS}
    config = RunConfig("", "", "", "", 1, 1, 1.0, 1, method=method.name, of_method=own)
    assert own.items() <= config.hyperparameters().items()


def test_a_method_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match="use 'supervised' or 'pretrain'") as refused:
        method_of("dpo")
    assert refused.value.param == "method.type"


def test_the_service_offers_them_without_loading_torch() -> None:
    check = (
        "import sys, trainer.app; sys.exit(', '.join({'torch', 'transformers', 'safetensors'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.strip()) == (0, "")

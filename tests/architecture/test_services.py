"""Each list of the services that is not made from `schemas.services` holds the same ones."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import ROOT

from chassis.settings import ServiceSettings
from schemas.services import SERVICES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {one["name"]: one for one in PROJECT["tool"]["importlinter"]["contracts"]}

LEFT_OUT = {
    "inside a service: app wires, api and events translate, use cases decide, domain knows no one": {
        "console",  # pages
    },
    "pymilvus stays in rag_indexer": {"rag_indexer"},
    "text_generation stays in inference_proxy.engines.tgi": {"inference_proxy"},
    "torch, transformers, peft and safetensors stay in the model files": {"model_server"},
    "fastapi stays at the edge": {"console", "inference_proxy", "model_server", "rag_indexer"},
}
"""Whom a contract of imports leaves out."""


def lists() -> Iterator[tuple[str, list[str], set[str]]]:
    """Name, entries and who may be missing, of each list of services in `pyproject.toml`."""
    tool: dict[str, Any] = PROJECT["tool"]
    yield "mypy packages", tool["mypy"]["packages"], set()
    yield "mypy path", [one.split("/")[1] for one in tool["mypy"]["mypy_path"].split(":") if "/" in one], set()
    yield "import-linter", tool["importlinter"]["root_packages"], set()
    for name, contract in CONTRACTS.items():
        for field in ("modules", "containers", "source_modules", "forbidden_modules"):
            entries = {one.split(".")[0] for one in contract.get(field, [])}
            if len(entries & set(SERVICES)) > 1:
                yield f"{name}: {field}", sorted(entries), LEFT_OUT.get(name, set())


@pytest.mark.parametrize(("name", "entries", "left_out"), lists(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_list_holds_every_service(name: str, entries: list[str], left_out: set[str]) -> None:
    assert set(SERVICES) - set(entries) == left_out


def test_who_is_left_out_is_so_in_a_contract_that_is_there() -> None:
    assert set(LEFT_OUT) <= set(CONTRACTS)


def test_each_folder_of_services_is_one() -> None:
    assert {path.parent.name for path in (ROOT / "services").glob("*/pyproject.toml")} == set(SERVICES)


def test_the_others_look_for_a_service_where_it_listens() -> None:
    asked = {f"{name}_url": f"http://127.0.0.1:{one.port}" for name, one in SERVICES.items() if name != "console"}
    asked |= {f"{name}_url": "" for name, one in SERVICES.items() if one.engine}  # there may be none
    fields = ServiceSettings.model_fields
    assert {name: fields[name].default for name in asked} == asked
    assert len({one.port for one in SERVICES.values()}) == len(SERVICES)

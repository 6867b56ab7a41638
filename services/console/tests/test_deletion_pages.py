"""Who takes something back is told before what goes with it, and types its name."""

from __future__ import annotations

from typing import Any

import pytest
from console_harness import FILE, JOB, MODEL, PROJECT, Harness, page, token_of

from chassis.errors import Conflict

pytestmark = pytest.mark.asyncio(loop_scope="module")

THINGS = {
    "file": ("/files/file-1", "rows.jsonl", "/v1/files/file-1", "viewer"),
    "model": (f"/models/{MODEL}", MODEL, f"/v1/models/{MODEL}", "viewer"),
    "labeling project": ("/labeling/lp-1", "Intents", "/v1/labeling/projects/lp-1", "labeler"),
}


@pytest.mark.parametrize("kind", THINGS)
async def test_its_name_is_asked_for_and_what_stays_is_said(harness: Harness, kind: str) -> None:
    place, name, route, _ = THINGS[kind]
    kept: list[dict[str, Any]] = [{"object": "dataset", "id": "ds-1", "because": "model x was made from it"}]
    harness.services.answers["DELETE", route] = {"deleted": True, "kept": kept}
    browser = await harness.sign_in()
    assert f'href="{place}/delete"'.replace(":", "%3A") in (await browser.get(place)).text.replace(":", "%3A")
    asked = (await browser.get(f"{place}/delete")).text
    assert f"Delete this {kind}?" in asked
    assert "What goes" in asked
    form = {"form_token": token_of(asked)}
    for wrong in ("", "rows", name.upper()):
        refused = await browser.post(f"{place}/delete", data={**form, "name": wrong})
        assert (refused.status_code, "nothing was deleted" in refused.text) == (400, True)
    assert harness.services.of("DELETE", route) == []
    done = await browser.post(f"{place}/delete", data={**form, "name": f" {name} "})
    assert done.status_code == 200
    assert "<code>ds-1</code>: model x was made from it." in done.text
    assert len(harness.services.of("DELETE", route)) == 1


@pytest.mark.parametrize("kind", THINGS)
async def test_who_may_not_delete_it_is_not_led_there(harness: Harness, kind: str) -> None:
    place, _, _, role = THINGS[kind]
    assert "/delete" not in (await (await harness.sign_in(role=role)).get(place)).text


async def test_the_models_of_a_file_and_the_answers_of_a_project_are_named_before(harness: Harness) -> None:
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page({**JOB, "fine_tuned_model": MODEL})
    harness.services.answers["GET", "/v1/labeling/projects/lp-1"] = {**PROJECT, "file_id": FILE["id"], "answered": 2}
    browser = await harness.sign_in()
    asked = (await browser.get("/files/file-1/delete")).text
    assert MODEL in asked
    assert harness.services.of("GET", "/v1/fine_tuning/jobs")[-1].query["training_file"] == "file-1"
    asked = (await browser.get("/labeling/lp-1/delete")).text
    assert "Its 3 rows and the 2 answers that people gave." in asked
    assert "The file that the rows came from." in asked


async def test_what_is_refused_is_said_where_it_was_asked(harness: Harness) -> None:
    harness.services.answers["DELETE", "/v1/files/file-1"] = Conflict("It is being read.", code="busy")
    browser = await harness.sign_in()
    form = {"form_token": token_of((await browser.get("/files/file-1/delete")).text), "name": "rows.jsonl"}
    refused = await browser.post("/files/file-1/delete", data=form)
    assert (refused.status_code, "It is being read." in refused.text) == (409, True)

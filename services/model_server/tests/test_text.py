"""Text comes out as the model made it: characters of several tokens, limits inside them, special tokens, stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence as Ids
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from fastapi import FastAPI
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_server.api import routes
from model_server.engine import Engine
from model_server.sequence import GenerateRequest, Sequence, Token
from model_server.vocabulary import Vocabulary

CORPUS = [
    *("龘靐齉", "鑾鱻麤", "𠮷𪚥", "ᚠᚢᚦᚨ", "ꦲꦤꦕꦫꦏ", "ꀀꀁꀂ", "ꯀꯁꯂ", "ᏣᎳᎩ", "አማርኛ", "བོད་", "ⲁⲃ", "𒀀𒀁", "𓀀", "𐀀", "𝔘𝕏"),
    *(
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇯🇵🇫🇷",
        "👍🏽",
        "é̂ñ",
        "n̈o",
        "עברית",
        "العربية",
        "ไทย",
        "हिन्दी",
        "தமிழ்",
        "ខ្មែរ",
        "한국어",
        "⠓⠑",
        "€¢£",
        "\u2028\u200f",
    ),
    *("plain words", " two  blanks ", "日本語。カード", "a龘b靐 c", "\ufffd", "x\ufffd龘", "\n\t"),
]
"""Texts of many scripts; a replacement character that the model itself wrote is text like any other."""


@pytest.fixture(scope="module", params=["bytes of SentencePiece", "bytes of GPT-2"])
def tokenizer(request: pytest.FixtureRequest, tiny_models: Path) -> Any:
    if request.param == "bytes of GPT-2":
        return AutoTokenizer.from_pretrained(tiny_models / "tiny-test")
    return byte_fallback()


def byte_fallback() -> Any:
    """A tokenizer as Gemma's: characters it does not hold are spelled in bytes, and blanks are ▁."""
    known = ["<pad>", "<eos>", "<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdeinotwrsx日本語。カード"]
    pairs = [("d", "s"), ("w", "o"), ("▁", "▁"), ("日", "本")]
    vocabulary = {text: place for place, text in enumerate([*known, *("".join(pair) for pair in pairs)])}
    bpe = Tokenizer(models.BPE(vocabulary, pairs, byte_fallback=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


@cache
def vocabulary(tokenizer: Any) -> Vocabulary:
    return Vocabulary(tokenizer)


async def written(tokenizer: Any, ids: Ids[int], most: int = 10_000, **options: Any) -> list[Token]:
    """The tokens of a model that wants to write `ids`, as an engine hands them on."""
    request = GenerateRequest(inputs="", **options)
    sequence = Sequence(request, [2], most, None, vocabulary(tokenizer), asyncio.get_running_loop())
    given: list[Token] = []
    for one in ids:
        sequence.choose(nn.functional.one_hot(torch.tensor(one), len(tokenizer)) * 40.0)
        token = await sequence.tokens.get()
        assert isinstance(token, Token)
        given.append(token)
        if token.finish_reason:
            break
    return given


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


async def test_every_character_of_every_script_comes_out_at_any_limit(tokenizer: Any) -> None:
    """Of one to eight in a row, whole with the token that ends it, and never in part."""
    for text in [text * times for place, text in enumerate(CORPUS) for times in (1, 1 + place % 8, 8)]:
        ids = ids_of(tokenizer, text)
        given = await written(tokenizer, ids)
        assert b"".join(token.bytes for token in given) == text.encode()
        assert "".join(token.text for token in given) == given[-1].generated_text == text
        for most in range(1, min(len(ids), 8) + 1) if text in CORPUS else [len(ids) - 1]:
            given = await written(tokenizer, ids, most)
            spelled = b"".join(token.bytes for token in given)
            assert (given[-1].finish_reason, len(given)) == ("length", most)
            assert given[-1].generated_text == spelled.decode(errors="ignore")
            assert "".join(token.text for token in given) == given[-1].generated_text
            assert text.encode().startswith(spelled)


async def test_every_character_spelled_in_bytes_comes_out_beside_others(tokenizer: Any) -> None:
    spelled = [chr(one) for one in range(0x4E00, 0xA000) if len(ids_of(tokenizer, chr(one))) > 1]
    assert len(spelled) > 20_000
    text = "".join(spelled[::47])
    given = await written(tokenizer, ids_of(tokenizer, text))
    assert given[-1].generated_text == text


def test_each_token_of_the_vocabulary_stands_for_what_the_tokenizer_makes_of_it(tokenizer: Any) -> None:
    known = vocabulary(tokenizer)
    for one in set(range(len(tokenizer))) - known.special:
        assert known.bytes_of(one).decode(errors="replace") == tokenizer.decode([one])
    assert known.longest == max(len(known.bytes_of(one)) for one in range(len(tokenizer)))


def test_a_tokenizer_of_another_kind_is_refused_at_the_start() -> None:
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "<eos>": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="WordPiece"):
        Vocabulary(PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<eos>"))


async def test_a_special_token_inside_an_answer_never_shows(tokenizer: Any) -> None:
    """Not a token later, and not inside a character."""
    ids = ids_of(tokenizer, "龘x靐")
    for place in range(len(ids) + 1):
        given = await written(tokenizer, [*ids[:place], tokenizer.bos_token_id, *ids[place:]])
        assert given[-1].generated_text == "龘x靐"
        assert "".join(token.text for token in given if not token.special) == "龘x靐"
        assert [token.text for token in given if token.special] == ["<bos>"]


async def test_bytes_that_are_no_character_show_as_such_and_hurt_no_neighbour(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, "龘")
    given = await written(tokenizer, [*ids_of(tokenizer, "a"), ids[0], *ids_of(tokenizer, "b龘")])
    assert given[-1].generated_text == "a\ufffdb龘"
    given = await written(tokenizer, [*ids[:-1], tokenizer.eos_token_id])
    assert (given[-1].generated_text, given[-1].finish_reason) == ("", "eos_token")


@pytest.mark.parametrize(
    ("text", "stop"),
    [("x龘靐齉b", "靐齉"), ("wo wo ds", "o d"), ("👩‍👩‍👧", "\u200d👧"), ("a\n\nb", "\n\nb"), ("日本語", "本語")],
)
async def test_a_stop_sequence_that_spans_tokens_ends_the_answer(tokenizer: Any, text: str, stop: str) -> None:
    given = await written(tokenizer, ids_of(tokenizer, text * 3), stop=["never", stop])
    assert given[-1].finish_reason == "stop_sequence"
    assert given[-1].generated_text.startswith(text[: text.index(stop)] + stop)
    assert stop not in given[-2].generated_text


async def test_the_likeliest_tokens_have_their_own_bytes(tokenizer: Any) -> None:
    ids = ids_of(tokenizer, "龘")
    for token in await written(tokenizer, ids, top_n_tokens=2):
        assert token.top[0][:2] == (token.id, token.bytes)
        assert token.top[0][2] == pytest.approx(token.logprob)


async def test_the_wire_carries_each_tokens_bytes_streamed_and_whole_alike(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "龘靐 x👍🏽"
    ids = [*ids_of(engine.tokenizer, text), engine.tokenizer.eos_token_id]
    size = engine.base.vocab_size

    def forward(batch: Any) -> torch.Tensor:
        rows = [ids[len(sequence._ids)] for sequence in batch.sequences]
        return nn.functional.one_hot(torch.tensor(rows), size) * 40.0

    monkeypatch.setattr(engine._passes, "logits", forward)
    app = FastAPI()
    app.include_router(routes(engine))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://engine") as http:
        body = {"inputs": "x", "parameters": {"max_new_tokens": 100, "top_n_tokens": 2}}
        whole = (await http.post("/generate", json=body)).json()
        stream = await http.post("/generate_stream", json=body)
    events = [json.loads(line[5:]) for line in stream.text.splitlines() if line.startswith("data:")]
    assert [event["token"] for event in events] == whole["details"]["tokens"]
    assert [event["top_tokens"] for event in events] == whole["details"]["top_tokens"]
    shown = [token for token in whole["details"]["tokens"] if not token["special"]]
    assert b"".join(bytes(token["bytes"]) for token in shown).decode() == "".join(one["text"] for one in shown) == text
    assert events[-1]["generated_text"] == whole["generated_text"] == text

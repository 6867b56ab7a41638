"""What each token of a base model stands for, in bytes: a character may be spelled by several tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece vocabularies write a token that is one byte of a character they do not hold."""


class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
        special: ids that stand for no text: control tokens, and those that end an answer.
        end_ids: ids that end an answer.
        longest: bytes of the longest token.

    Args:
        tokenizer: of the base model.
        end_texts: stop tokens of the base; those that are one token end an answer.

    Raises:
        ValueError: the tokenizer turns tokens into text in a way that is not known here.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, end_texts: Iterable[str] = ()) -> None:
        decoder = tokenizer.backend_tokenizer.decoder
        steps = list(_steps(json.loads(decoder.__getstate__()))) if decoder else []
        kinds = {step["type"] for step in steps}
        if not kinds & {"ByteLevel", "ByteFallback", "Metaspace"}:
            raise ValueError(f"A tokenizer whose decoder is {sorted(kinds)} is not known here.")
        by_level = _byte_level() if "ByteLevel" in kinds else None
        replaced = [(step["pattern"]["String"], step["content"]) for step in steps if step["type"] == "Replace"]
        replaced += [(step["replacement"], " ") for step in steps if step["type"] == "Metaspace"]
        self._bytes = {one: _spelled(text, by_level, replaced) for text, one in tokenizer.get_vocab().items()}
        if by_level is not None:  # added tokens are held as they are written
            self._bytes |= {one: token.content.encode() for one, token in tokenizer.added_tokens_decoder.items()}
        single = (tokenizer(text, add_special_tokens=False).input_ids for text in end_texts)
        self.end_ids: set[int] = {ids[0] for ids in single if len(ids) == 1} | {tokenizer.eos_token_id}
        self.special: set[int] = self.end_ids | set(tokenizer.all_special_ids)
        self.longest = max(map(len, self._bytes.values()))

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; nothing where the model has more tokens than the tokenizer."""
        return self._bytes.get(token, b"")


def _steps(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if decoder["type"] == "Sequence":
        for inner in decoder["decoders"]:
            yield from _steps(inner)
    else:
        yield decoder


def _spelled(text: str, by_level: dict[str, int] | None, replaced: list[tuple[str, str]]) -> bytes:
    if by_level is not None:
        return b"".join(bytes([by_level[letter]]) if letter in by_level else letter.encode() for letter in text)
    if one_byte := BYTE_TOKEN.fullmatch(text):
        return bytes([int(one_byte[1], 16)])
    for old, new in replaced:
        text = text.replace(old, new)
    return text.encode()


def _byte_level() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's `bytes_to_unicode`), turned round."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}

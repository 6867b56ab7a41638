"""Token ids as text: clients of OpenAI's API send these for embeddings, LangChain's does by default.

They are read as `cl100k_base`, which is what such a client writes for a model it does not know. The vocabulary is
tiktoken's (https://github.com/openai/tiktoken, MIT), each token as its length in one byte and its bytes.
"""

from __future__ import annotations

import asyncio
import lzma
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from chassis.errors import Invalid
from chassis.text import quoted

VOCABULARY = Path(__file__).with_name("cl100k_base.xz")


async def texts_of(inputs: Sequence[str | list[int]]) -> list[str]:
    """The texts of an embeddings request, those sent as token ids among them.

    Raises:
        Invalid: an id is none of `cl100k_base`.
    """
    return await asyncio.to_thread(lambda: [_text(one, index) for index, one in enumerate(inputs)])


@cache
def tokens() -> list[bytes]:
    """The bytes of each token, by its id."""
    data, found, at = lzma.decompress(VOCABULARY.read_bytes()), [], 0
    while at < len(data):
        end = at + 1 + data[at]
        found.append(data[at + 1 : end])
        at = end
    return found


def _text(given: str | list[int], index: int) -> str:
    if isinstance(given, str):
        return given
    known = tokens()
    wrong = next((one for one in given if not 0 <= one < len(known)), None)
    if wrong is not None:
        raise Invalid(
            f"input[{index}]: {quoted(wrong)} is no token id of cl100k_base. Send texts; "
            "in LangChain, set check_embedding_ctx_length=False.",
            param="input",
        )
    return b"".join(known[one] for one in given).decode(errors="replace")

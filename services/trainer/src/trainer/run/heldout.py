"""What a run held out, as places in its training file with their losses: for who tests its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, islice
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from schemas.artifacts import MOST_DOCUMENTS, MOST_WINDOWS, HeldoutDocument, HeldoutText, HeldoutWindow
from trainer.run.data import Data, Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

GOLDEN = (5**0.5 - 1) / 2
"""Steps of this, without the whole ones, fall everywhere alike between 0 and 1: documents begin alike."""


def places(text: str, line: int, tokenizer: PreTrainedTokenizerBase, first: int, longest: int) -> list[Place]:
    """Where the windows of a document stand.

    Args:
        text: the document.
        line: of the training file, from 0.
        tokenizer: of the base model; one that does not tell characters leaves every place empty.
        first: token of the document that the first window begins with.
        longest: tokens of a window; the last one holds the token that ends the document too.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    n_tokens = len(encoded.input_ids)
    offsets = encoded.offset_mapping if tokenizer.is_fast else [(0, 0)] * n_tokens
    ends = [0, *accumulate((end for _, end in offsets), max)]
    cuts = [(begin, min(begin + longest, n_tokens)) for begin in range(first, n_tokens + 1, longest)]
    return [Place(line, ends[begin], ends[end], end - begin) for begin, end in cuts]


def told(losses: Sequence[Sequence[float]], windows: Sequence[Place]) -> list[list[float]]:
    """Of the losses of windows those that an engine tells of their text: not the first token's, nor the last end's."""
    return [list(of[1 : place.tokens]) for of, place in zip(losses, windows, strict=True)]


def listed(data: Data, base: Sequence[Sequence[float]], adapter: Sequence[Sequence[float]]) -> HeldoutText | None:
    """The windows that can be asked about, as many as the file may hold, spread over all of them.

    Args:
        data: what was held out.
        base: losses of each window by the base model, as `told`.
        adapter: the same with the adapter.
    """
    measured = zip(data.heldout_places, base, adapter, strict=True)
    of_documents = [
        [one for one in islice(measured, n_windows) if one[1] and one[0].start < one[0].end]
        for n_windows in data.heldout_documents or [len(data.heldout_places)]
    ]
    documents = _spread([windows for windows in of_documents if windows], MOST_DOCUMENTS)
    if not documents:
        return None
    share = max(MOST_WINDOWS // len(documents), 1)
    return HeldoutText(
        version=1,
        kind=data.kind,
        unit="documents" if data.heldout_documents else "passages",
        documents=[
            HeldoutDocument(
                line=windows[0][0].line,
                windows=[_window(*one) for one in _spread(windows, share, (0.5 + place * GOLDEN) % 1)],
            )
            for place, windows in enumerate(documents)
        ],
    )


def _window(place: Place, base: Sequence[float], adapter: Sequence[float]) -> HeldoutWindow:
    return HeldoutWindow(
        start=place.start,
        end=place.end,
        tokens=len(base),
        base=round(fmean(base), 6),
        adapter=round(fmean(adapter), 6),
    )


def _spread(items: Sequence[T], most: int, phase: float = 0.5) -> Sequence[T]:
    """At most so many of them, at even distances; `phase`, from 0 to 1, is where in its share each is taken."""
    if len(items) <= most:
        return items
    return [items[int((place + phase) * len(items) / most)] for place in range(most)]

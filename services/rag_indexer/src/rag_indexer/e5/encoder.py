"""The model's forward pass in float32, without padding, and in portions that a processor's cache holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np

from rag_indexer.e5.weights import Affine, Floats, Weights

CACHED = 32_768
"""Numbers worked on at a time; 128 KiB fit in the second cache of every processor of today."""

LINEAR, CUBIC = np.float32(-1.5957691216), np.float32(-0.0713548163)


@dataclass(frozen=True)
class Run:
    """Texts of one length, which lie one after the other."""

    tokens: slice
    texts: int
    length: int


class Encoder:
    """Token ids to the mean of what the model makes of them."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def means(self, texts: list[list[int]]) -> Floats:
        """Mean of the last states of each text, shape (texts, width).

        Args:
            texts: their token ids, in order of their length.
        """
        runs = _runs([len(text) for text in texts])
        states = self._embedded(texts, runs)
        tokens, width = states.shape
        wide = len(self._weights.layers[0].widened.bias)
        attention, context, change, hidden = (
            np.empty((tokens, columns), np.float32) for columns in (3 * width, width, width, wide)
        )
        scratch = np.empty(max(CACHED, runs[-1].length ** 2), np.float32)
        for layer in self._weights.layers:
            np.matmul(states, layer.attention.weight, out=attention)
            attention += layer.attention.bias
            for run in runs:
                self._attend(run, attention[run.tokens], context[run.tokens], scratch)
            self._add(context, layer.attention_output, states, change)
            self._normalise(states, layer.attention_norm)
            np.matmul(states, layer.widened.weight, out=hidden)
            _gelu(hidden, layer.widened.bias, scratch)
            self._add(hidden, layer.narrowed, states, change)
            self._normalise(states, layer.norm)
        return np.concatenate([states[run.tokens].reshape(run.texts, run.length, width).mean(axis=1) for run in runs])

    def _embedded(self, texts: list[list[int]], runs: list[Run]) -> Floats:
        states = self._weights.embedded(np.fromiter(chain.from_iterable(texts), np.int64))
        for run in runs:
            states[run.tokens].reshape(run.texts, run.length, -1)[...] += self._weights.positions[: run.length]
        self._normalise(states, self._weights.norm)
        return states

    def _attend(self, run: Run, attention: Floats, context: Floats, scratch: Floats) -> None:
        """Attention within each text, of as many heads and texts at a time as the scratch has room for."""
        heads = self._weights.heads
        parts = attention.reshape(run.texts, run.length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        into = context.reshape(run.texts, run.length, heads, -1).transpose(0, 2, 1, 3)
        room = len(scratch) // run.length**2
        texts_a_time, heads_a_time = max(1, room // heads), min(room, heads)
        for text in range(0, run.texts, texts_a_time):
            for head in range(0, heads, heads_a_time):
                here = np.s_[text : text + texts_a_time, head : head + heads_a_time]
                query, key, value = parts[:, *here]
                shape = (*query.shape[:2], run.length, run.length)
                scores = scratch[: query[..., 0].size * run.length].reshape(shape)
                np.matmul(query, key.swapaxes(2, 3), out=scores)
                scores -= scores.max(axis=3, keepdims=True)
                np.exp(scores, out=scores)
                into[here] = np.matmul(scores, value) / scores.sum(axis=3, keepdims=True)

    def _add(self, values: Floats, by: Affine, states: Floats, change: Floats) -> None:
        np.matmul(values, by.weight, out=change)
        change += by.bias
        states += change

    def _normalise(self, states: Floats, by: Affine) -> None:
        """Layer normalisation, in place."""
        width = states.shape[1]
        rows = CACHED // width
        for begin in range(0, len(states), rows):
            part = states[begin : begin + rows]
            part -= np.add.reduce(part, axis=1, keepdims=True) / np.float32(width)
            variance = np.einsum("ij,ij->i", part, part) / np.float32(width)
            part /= np.sqrt(variance + np.float32(self._weights.epsilon))[:, None]
            part *= by.weight
            part += by.bias


def _gelu(hidden: Floats, bias: Floats, scratch: Floats) -> None:
    """GELU of `hidden + bias`, in place, by its tanh form (Hendrycks and Gimpel, arXiv 1606.08415, section 2)."""
    rows = CACHED // len(bias)
    with np.errstate(over="ignore"):  # of a very negative number; what is divided by infinity is 0, as it should be
        for begin in range(0, len(hidden), rows):
            part = hidden[begin : begin + rows]
            part += bias
            inner = scratch[: part.size].reshape(part.shape)
            np.multiply(part, part, out=inner)
            inner *= CUBIC
            inner += LINEAR
            inner *= part
            np.exp(inner, out=inner)
            inner += 1
            part /= inner


def _runs(lengths: list[int]) -> list[Run]:
    runs, at = [], 0
    for length, same in groupby(lengths):
        texts = len(list(same))
        runs.append(Run(slice(at, at + texts * length), texts, length))
        at += texts * length
    return runs

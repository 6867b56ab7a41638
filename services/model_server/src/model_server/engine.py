"""The engine: one base model and many adapters, requests of any of them computed together.

One thread owns the model. Requests that wait are taken up as a batch, prefilled together, and decoded in turn with the
batches already running, one token a batch at a time; a request never waits for another one's answer to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import structlog
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from arithmetic import answering, fastest
from model_server.adapters import read_adapter
from model_server.batching import Batch, ForwardPasses, shared_prefix
from model_server.chores import Chore
from model_server.errors import AdapterNotFound, EngineStopped, InputTooLong, Overloaded, ParameterRefused
from model_server.lora import Adapter, Plan, adapt, build
from model_server.scoring import Scored, Scoring, Scorings
from model_server.sequence import GenerateRequest, Sequence, Token
from model_server.vocabulary import Vocabulary
from schemas.artifacts import Probe
from serving import AdapterRefused, BaseFolder, Proof, proof_of

log = structlog.get_logger()

PREFILL_TOKENS = 4096
"""Padded tokens of one prefill; more gain no speed on a CPU and take memory."""

GATHER_SECONDS = 0.005
"""How long an idle engine waits for requests that come together with the first."""

MOST_BATCHES = 8

STOPPED = "the engine's thread has ended"


T = TypeVar("T")


class Engine:
    """A loaded base model and its adapters.

    It is a `serving.AdapterHost`, whose attributes and methods are described there.

    Attributes:
        begins: tokens that the tokenizer puts before every text.
        kind: the type it computes in, see `arithmetic.fastest`.

    Args:
        folder: base-model folder with a `base.json`.
        threads: torch threads; 0 leaves torch's choice.
        batch: most sequences of a batch.
        queue: most requests that wait.
        max_tokens: longest prompt and answer together.
    """

    engine = "tgi"
    capabilities: tuple[str, ...] = ("echo",)
    at_once = 1

    def __init__(
        self, folder: Path, *, threads: int = 0, batch: int = 16, queue: int = 128, max_tokens: int = 2048
    ) -> None:
        self._folder = BaseFolder(folder)
        self.base = self._folder.spec
        self.max_tokens = min(max_tokens, self.base.context_length)
        if threads:
            torch.set_num_threads(threads)
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.kind = fastest(getattr(torch, self.base.dtype), self.base.parameters, answering)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=self.kind, attn_implementation="sdpa"
        ).eval()
        plan, pad = Plan(), self.tokenizer.pad_token_id or 0
        self._layers = adapt(model, plan)
        decoder, head = model.base_model, model.get_output_embeddings().weight
        self._passes = ForwardPasses(decoder, head, plan, pad, model.config)
        self._scorings = Scorings(decoder, head, plan, pad)
        self._steps = 0
        self.vocabulary = Vocabulary(self.tokenizer, self.base.stop_tokens)
        self.begins = len(self.encode(""))
        self._adapters: dict[str, Adapter] = {}
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}
        self._batch = batch
        self._most_waiting = queue
        self._waiting: deque[Sequence] = deque()
        self._chores: deque[Chore[Any]] = deque()
        self._running: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def proven(self) -> bool:
        """Whether the files loaded were found to be the base model's."""
        return self._folder.is_proven

    @property
    def alive(self) -> bool:
        """Whether the thread that answers still runs."""
        return self._thread.is_alive()

    async def ping(self) -> None:
        """Raise unless the engine's thread runs."""
        if not self.alive:
            raise EngineStopped(STOPPED)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._waiting) + len(self._scorings.waiting)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the begin-of-text token."""
        ids: list[int] = self.tokenizer(text).input_ids
        return ids

    async def _encoded(self, text: str) -> list[int]:
        """The ids of a prompt that leaves room for an answer: judged by its size first, and read beside the loop."""
        fewest = len(text.encode()) // self.vocabulary.longest
        if fewest >= self.max_tokens:
            raise InputTooLong(f"`inputs` must have less than {self.max_tokens} tokens. Given: at least {fewest}")
        ids = await asyncio.to_thread(self.encode, text)
        if len(ids) >= self.max_tokens:
            raise InputTooLong(f"`inputs` must have less than {self.max_tokens} tokens. Given: {len(ids)}")
        return ids

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Token, None]:
        """Generate token by token; leaving the iterator ends the generation.

        Raises:
            AdapterNotFound, InputTooLong, ParameterRefused, Overloaded, EngineStopped: as the names say; nothing was
                computed.
        """
        adapter = None if request.adapter_id is None else self._adapter(request.adapter_id)
        if unknown := [one for one in request.logit_bias if one >= self.base.vocab_size]:
            raise ParameterRefused(f"logit_bias: this model has no token {unknown[0]}")
        ids = await self._encoded(request.inputs)
        room = self.max_tokens - len(ids)
        most = room if request.max_new_tokens is None else request.max_new_tokens
        if most > room:
            raise InputTooLong(
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_tokens}. "
                f"Given: {len(ids)} `inputs` tokens and {most} `max_new_tokens`"
            )
        sequence = Sequence(request, ids, most, adapter, self.vocabulary, asyncio.get_running_loop())
        self._queue(self._waiting, sequence)
        try:
            while True:
                token = await sequence.tokens.get()
                if isinstance(token, Exception):
                    raise token
                yield token
                if token.finish_reason is not None:
                    return
        finally:
            sequence.cancelled = True
            with self._changed, contextlib.suppress(ValueError):  # it may have been taken up
                self._waiting.remove(sequence)

    async def score(self, text: str, adapter_id: str | None, top: int = 0) -> list[Scored]:
        """The log-probability of each token of a text after those before it; nothing is generated.

        Args:
            text: to be scored.
            adapter_id: who scores it; the base alone if None.
            top: how many of the likeliest tokens are told in each place.

        Raises:
            AdapterNotFound, InputTooLong, Overloaded, EngineStopped: as `generate`.
        """
        adapter = None if adapter_id is None else self._adapter(adapter_id)
        scoring = Scoring(await self._encoded(text), adapter, top)
        self._queue(self._scorings.waiting, scoring)
        return await asyncio.wrap_future(scoring.done)

    def _queue(self, waiting: deque[T], one: T) -> None:
        with self._changed:
            if self._stopping:
                raise EngineStopped(STOPPED)
            if self.queued >= self._most_waiting:
                raise Overloaded(f"{self._most_waiting} requests wait already")
            waiting.append(one)
            self._changed.notify()

    async def attest(self) -> None:
        """The files loaded are the base model's; see `serving.AdapterHost`."""
        await self._folder.prove()

    @property
    def held(self) -> set[str]:
        """Ids of the adapters held."""
        return set(self._adapters)

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        """Adapters come and go here without a preparation: all may be loaded at once."""
        return list(folders)

    async def load(self, folder: Path) -> Proof:
        """Read the adapter in `folder`, load it and prove it against the trainer's fingerprint.

        Raises:
            AdapterRefused: it is not what it says, does not fit or match its fingerprint, or answers as the base does.
        """
        files = read_adapter(folder, base_id=self.base.id, base_digest=self.base.digest)
        try:
            adapter = build(files.adapter_id, files.tensors, files.scale, self._layers, files.rank)
        except ValueError as error:
            raise AdapterRefused(f"{files.adapter_id}: {error}") from error
        proof = await asyncio.wrap_future(self._chore(lambda: self._prove(adapter, files.probes)))
        self._adapters[adapter.id] = adapter
        self.proofs[adapter.id] = proof
        return proof

    async def unload(self, adapter_id: str) -> None:
        """Let go of an adapter; requests that wait or are under way keep it to their end."""
        self.proofs.pop(adapter_id, None)
        self._adapters.pop(adapter_id, None)
        self.used.pop(adapter_id, None)

    def close(self) -> None:
        """Stop the thread after the step it is in."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _adapter(self, adapter_id: str) -> Adapter:
        adapter = self._adapters.get(adapter_id)
        if adapter is None:
            raise AdapterNotFound(adapter_id)
        self.used[adapter_id] = time.monotonic()
        return adapter

    def _chore(self, work: Callable[[], T]) -> Future[T]:
        chore = Chore(work)
        with self._changed:
            if self._stopping:
                raise EngineStopped(STOPPED)
            self._chores.append(chore)
            self._changed.notify()
        return chore.done

    def _prove(self, adapter: Adapter, probes: Iterable[Probe]) -> Proof:
        measured = [
            (
                probe,
                self._log_probs(probe.prompt_ids, probe.continuation_ids, adapter),
                self._log_probs(probe.prompt_ids, probe.continuation_ids, None),
            )
            for probe in probes
        ]
        return proof_of(adapter.id, measured)

    def _log_probs(self, prompt: list[int], continuation: list[int], adapter: Adapter | None) -> list[float]:
        [scored] = self._scorings.of([Scoring(prompt + continuation, adapter)])
        return [float(one.logprob or 0.0) for one in scored[len(prompt) :]]

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._end()

    def _end(self) -> None:
        """Whoever still waits is told, rather than left waiting for a thread that is gone."""
        with self._changed:
            self._stopping = True
            left = [*self._waiting, *(sequence for batch in self._running for sequence in batch.sequences)]
            chores = [chore.done for chore in self._chores]
            self._waiting.clear()
            self._running.clear()
            self._chores.clear()
        stopped = EngineStopped(STOPPED)
        self._scorings.fail(stopped)
        for sequence in left:
            sequence.fail(stopped)
        for future in chores:
            if future.set_running_or_notify_cancel():
                future.set_exception(stopped)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self.queued or self._chores or self._running)
                if self._stopping:
                    return
                chore = self._chores.popleft() if self._chores else None
                if self._waiting and not self._running:
                    self._changed.wait_for(lambda: len(self._waiting) >= self._batch, GATHER_SECONDS)
            if chore is not None:
                chore.do()
            with torch.inference_mode():
                if self._waiting and len(self._running) < MOST_BATCHES:
                    self._admit()
                if self._running:
                    self._advance(self._running.popleft())
            self._steps += 1
            if self._scorings.waiting and self._steps >= len(self._running):  # between two passes each batch has a step
                self._steps = 0
                self._scorings.step()

    def _admit(self) -> None:
        """Take up waiting requests as a new batch."""
        taken = self._next()
        if not taken:
            return
        try:
            batch = self._passes.batch(taken)
        except Exception as error:  # the boundary of the engine's thread: these requests fail, the others go on
            _fail(taken, error)
            return
        self._advance(batch)

    def _next(self) -> list[Sequence]:
        """Waiting requests, as many as fit one prefill."""
        taken: list[Sequence] = []
        longest = 0
        with self._changed:
            while self._waiting and len(taken) < self._batch:
                sequence = self._waiting[0]
                longest = max(longest, len(sequence.prompt))
                own = longest - shared_prefix([*taken, sequence])
                if taken and own * (len(taken) + 1) > PREFILL_TOKENS:
                    break
                self._waiting.popleft()
                if not sequence.cancelled:
                    taken.append(sequence)
        return taken

    def _advance(self, batch: Batch) -> None:
        """One forward pass of a batch; sequences that end leave it, and it queues up again if any is left."""
        try:
            left = self._stepped(batch)
        except Exception as error:  # the boundary of the engine's thread: these requests fail, the others go on
            _fail(batch.sequences, error)
            return
        if left:
            self._running.append(batch)

    def _stepped(self, batch: Batch) -> bool:
        """Choose a token for each row and make the batch ready for the next pass; whether any row is left."""
        logits = self._passes.logits(batch)
        chosen = [_chosen(sequence, row_logits) for sequence, row_logits in zip(batch.sequences, logits, strict=True)]
        alive = [row for row, sequence in enumerate(batch.sequences) if not (sequence.ended or sequence.cancelled)]
        if not alive:
            return False
        batch.ids = torch.tensor([[chosen[row]] for row in alive])
        if len(alive) < len(batch.sequences):
            rows = torch.tensor(alive)
            batch.cache.batch_select_indices(rows)
            batch.mask = batch.mask[rows]
            batch.sequences = [batch.sequences[row] for row in alive]
        batch.mask = torch.cat([batch.mask, batch.mask.new_ones((len(alive), 1))], dim=1)
        return True


def _chosen(sequence: Sequence, logits: torch.Tensor) -> int:
    try:
        return sequence.choose(logits)
    except Exception as error:  # the boundary of one request: what it asks for fails it alone, not its batch
        _fail([sequence], error)
        return 0


def _fail(sequences: list[Sequence], error: Exception) -> None:
    log.error("requests_failed", requests=len(sequences), exc_info=error)
    for sequence in sequences:
        if not sequence.ended:
            sequence.fail(error)

"""What the proxy asks of any engine, in no engine's own words."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import Counter

from chassis.errors import Invalid, RateLimited, Transient
from schemas.artifacts import Provider
from schemas.http.rag_indexer import ArmAnswer
from schemas.http.registry import ArmRoute

WRONG_MODELS = Counter(
    "inference_wrong_models_total", "Answers not given, as their engine named another model, or none.", ["why"]
)
for _why in ("another", "unnamed", "refused"):
    WRONG_MODELS.labels(_why)  # an alert sees the first one only if there was a zero before


@dataclass(frozen=True)
class Target:
    """Who is to answer.

    Attributes:
        base_id: the base model.
        url: where the engine answers.
        adapter_id: the adapter on top, or the arm that answers in its place; None for the base model itself.
        provider: how the base model's provider is asked, where it is not served by us.
        kind: of the engine.
        base_digest: of the base model's files; empty for a provider's.
        echoes: whether each answer must name base and adapter; it is given to nobody where it does not.
        replica_id: whose engine it is; empty for a provider's, and for an arm's.
        arm: what is known of the arm, where one answers.
        tenant_id: who asks.
        testing: whether a test asks, which takes no place of people.
    """

    base_id: str
    url: str
    adapter_id: str | None = None
    provider: Provider | None = None
    kind: str = "tgi"
    base_digest: str = ""
    echoes: bool = False
    replica_id: str = ""
    arm: ArmRoute | None = None
    tenant_id: str = ""
    testing: bool = False


@dataclass(frozen=True)
class Prompt:
    """What is to be answered: a text as the model reads it, or a conversation that the engine renders itself.

    Attributes:
        param: the field of the request that holds it.
        said: what an arm has said to it already.
        sure_from: the confidence that an arm's answer must have.
    """

    param: str
    text: str = ""
    messages: Sequence[Mapping[str, str]] = ()
    said: ArmAnswer | None = None
    sure_from: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """How to generate; None leaves the engine's default, and as many tokens as the context has room for.

    Attributes:
        logprobs: whether each token comes with its log-probability.
        top_logprobs: how many of the likeliest tokens come with each.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    logprobs: bool = False
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None

    @property
    def wanted(self) -> list[str]:
        """Fields of the request that ask for something an engine may lack."""
        wanted = {
            "temperature": self.temperature not in (None, 1),
            "top_p": self.top_p not in (None, 1),
            "seed": self.seed is not None,
            "stop": bool(self.stop),
            "logprobs": self.logprobs,
            "frequency_penalty": bool(self.frequency_penalty),
            "presence_penalty": bool(self.presence_penalty),
            "logit_bias": bool(self.logit_bias),
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]


@dataclass(frozen=True)
class Accepted:
    """The engine has taken the request: its prompt is paid for from now on, however the answer ends.

    Attributes:
        prompt_tokens: an estimate, until a piece tells more.
    """

    prompt_tokens: int


@dataclass(frozen=True)
class Piece:
    """One generated token. `finish_reason` is set on the last one, with the counts of the whole answer.

    Attributes:
        text: what became whole with it.
        special: it is no part of the text.
        bytes: what it stands for itself; None from an engine that does not tell.
        top: the likeliest tokens: text, log-probability, bytes.
        prompt_tokens: as far as known; 0 where it is not.
        cpu_seconds: processor time that an arm took; 0 of an engine whose tokens have a price.
        confidence: how sure an arm is; None of another engine.
    """

    text: str
    logprob: float | None = None
    special: bool = False
    bytes: builtins.bytes | None = None
    top: list[tuple[str, float, builtins.bytes | None]] = field(default_factory=list)
    finish_reason: str | None = None
    generated_tokens: int = 0
    prompt_tokens: int = 0
    cpu_seconds: float = 0.0
    confidence: float | None = None


@dataclass(frozen=True)
class Scored:
    """What a given text is worth to a model.

    Attributes:
        pieces: its tokens, each with its log-probability after those before it; the first may have none.
        prompt_tokens: how many the model read, with those that an engine puts before every text.
    """

    pieces: list[Piece]
    prompt_tokens: int


class Engine(Protocol):
    """Something that models answer by; one for all targets of its kind."""

    async def open(self) -> None:
        """Connect, inside the running event loop."""

    async def close(self) -> None:
        """Close what is open."""

    def generate(self, target: Target, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Accepted | Piece, None]:
        """Answer token by token; leaving the iterator cancels the generation.

        An engine that has to be paid for a prompt that nobody waits for says `Accepted` before the first token.

        Raises:
            PromptTooLong: prompt and answer do not fit the model's context.
            Invalid: the engine refuses something else in the request, which the message names.
            EngineBusy: it has too many requests.
            EngineAway: it cannot be reached, or does not let us in.
            ModelLoading: it does not hold the adapter (yet).
            WrongModel: another base or adapter answers there; nothing of its answer is given.
            AnswerBroken: it failed, or stopped before the end of the answer.
        """
        ...

    def score(self, target: Target, prompt: Prompt, top: int) -> AsyncGenerator[Accepted | Scored, None]:
        """The log-probability of each token of a prompt's text, all at once; nothing is generated.

        An engine that has to be paid for a prompt that nobody waits for says `Accepted` before that.

        Args:
            target: who reads it.
            prompt: a text.
            top: how many of the likeliest tokens come with each.

        Raises:
            PromptTooLong, Invalid, EngineBusy, EngineAway, ModelLoading, WrongModel, AnswerBroken: as `generate`.
        """
        ...

    async def tokenize(self, target: Target, text: str) -> list[int]:
        """The base model's tokens of a text, without those that mark its ends.

        Raises:
            Invalid: the engine does not tell, or refuses the text.
            EngineBusy, EngineAway, WrongModel, AnswerBroken: as `generate`.
        """
        ...

    async def capabilities(self, target: Target, wanted: Collection[str]) -> Collection[str]:
        """Those of the wanted fields of a request that it honours.

        Among them are `messages` and `prompt`; `echo`, which needs `score`; and `echo_top`, the likeliest tokens there.

        Raises:
            EngineAway, AnswerBroken: it cannot be asked.
        """
        ...


class PromptTooLong(Invalid):
    """Prompt and answer do not fit the model's context."""

    def __init__(self, why: str, param: str) -> None:
        super().__init__(
            f"This model's context is too short for the prompt and the answer together: {why}. "
            f"Shorten {param} or lower max_tokens.",
            code="context_length_exceeded",
            param=param,
        )


class EngineBusy(RateLimited):
    """The engine has too many requests."""

    def __init__(self, retry_after: float = 1) -> None:
        super().__init__("The model has too many requests at the moment; try again shortly.", retry_after=retry_after)


class EngineAway(Transient):
    """The engine cannot be reached, or does not let us in; what its operator must know is in the log."""

    def __init__(self, *, retry_after: float | None = 1) -> None:
        super().__init__("The model is not reachable at the moment; try again shortly.", retry_after=retry_after)


class ArmGone(EngineAway):
    """The files of an arm are gone: it was deleted, or replaced just now."""

    default_code = "arm_gone"


class EngineLate(EngineAway):
    """The engine took the request and has not answered it in the time that an answer may take."""


class ModelLoading(Transient):
    """The model is wanted where it is not held yet."""

    def __init__(self) -> None:
        super().__init__("The model is being loaded; try again in a few seconds.", code="model_loading", retry_after=2)


class AnswerBroken(Transient):
    """The engine failed, or stopped before the end of the answer."""

    def __init__(self, why: str, *, retry_after: float = 1) -> None:
        super().__init__(f"The model failed to answer: {why}", code="generation_failed", retry_after=retry_after)


class WrongModel(Transient):
    """Another base or adapter answers than the route says, or it does not name itself; the operator must look."""

    def __init__(self) -> None:
        super().__init__(
            "What answers in this model's place is not this model, so nothing of it is given; try again shortly.",
            code="wrong_model",
            retry_after=5,
        )

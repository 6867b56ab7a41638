"""OpenAI's requests for chat and completions: what is understood, and a clear no to what is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from chassis.bodies import AnyJson, Body, Metadata
from chassis.errors import Invalid
from inference_proxy.engines import Sampling
from inference_proxy.messages import Message, Name, Text, plain

MOST_CHOICES = 4
MOST_ANSWERS = 16
MOST_STORES = 10
MOST_STOPS = 4
MOST_MESSAGES = 10_000
MOST_BIASES = 1024

StopText = Annotated[str, Field(max_length=1000)]
Penalty = Annotated[float | None, Field(ge=-2, le=2)]
TokenId = Annotated[int, Field(ge=0)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Tool(Body):
    """A tool of a chat request."""

    type: Name
    vector_store_ids: list[Name] | None = Field(None, max_length=MOST_STORES)


class StreamOptions(Body):
    """What a stream carries besides the text."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"include_obfuscation": (True, False)}

    include_usage: bool | None = None


@dataclass(frozen=True)
class Kept:
    """What is kept of a chat, as it was sent."""

    messages: list[dict[str, JsonValue]]
    metadata: dict[str, str]


class Common(Body):
    """What both kinds of request share."""

    ADVICE: ClassVar[frozenset[str]] = frozenset({"user"})
    ID_PREFIX: ClassVar[str]
    model: Name = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: StopText | Annotated[list[StopText], Field(max_length=100)] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    logit_bias: dict[TokenId, Bias] | None = Field(None, max_length=MOST_BIASES)

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stop_texts(self) -> list[str]:
        """Stop sequences as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def requests(self) -> int:
        """As how many requests it counts."""
        return 1

    @property
    def kept(self) -> Kept | None:
        """What is kept of its content; None where nothing is."""
        return None

    @property
    def echoes(self) -> bool:
        """Whether answers begin with their prompts."""
        return False

    @property
    def scores(self) -> bool:
        """Whether it asks what the prompts themselves are worth."""
        return False

    def refuse(self) -> None:
        """Refuse what is not there.

        Raises:
            Invalid: it names the field.
        """
        if len(self.stop_texts) > MOST_STOPS or not all(self.stop_texts):
            raise Invalid(f"stop: at most {MOST_STOPS} texts, none of them empty.", param="stop")
        if self.stream_options is not None and not self.stream:
            raise Invalid("stream_options: is for stream=true only.", param="stream_options")

    @property
    @abstractmethod
    def top(self) -> int | None:
        """How many of the likeliest tokens come with each; None where log-probabilities are not asked for."""

    def sampling(self, stop_tokens: Sequence[str], choice: int) -> Sampling:
        """How the engine should generate the given choice; without a limit, to the end of the context."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed + choice if self.seed is not None else None,
            stop=[*self.stop_texts, *stop_tokens],
            logprobs=self.top is not None,
            top_logprobs=self.top or None,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=self.logit_bias,
        )


class ChatAsked(Common):
    """`POST /v1/chat/completions`."""

    ADVICE: ClassVar[frozenset[str]] = Common.ADVICE | {
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "function_call": ("none", "auto"),
        "functions": ([],),
        "modalities": (["text"],),
        "parallel_tool_calls": (True,),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
    }

    ID_PREFIX = "chatcmpl-"

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, AnyJson] | None = Field(None, max_length=10)
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: AnyJson = None
    store: bool | None = None
    metadata: Metadata | None = None
    vector_store_ids: list[Name] | None = Field(None, max_length=MOST_STORES)

    def checked(self) -> ChatAsked:
        """The request with its limit in one place.

        Raises:
            Invalid: it asks for something that is not there.
        """
        self.refuse()
        if (self.response_format or {}).get("type", "text") != "text":
            raise Invalid("response_format: only 'text' is available.", param="response_format")
        if any(tool.type != "file_search" for tool in self.tools or []):
            raise Invalid("tools: only 'file_search' with vector_store_ids is available.", param="tools")
        if not self.vector_store_ids and not all(tool.vector_store_ids for tool in self.tools or []):
            raise Invalid("tools: 'file_search' needs vector_store_ids, its own or the request's.", param="tools")
        if self.tool_choice not in (None, "auto", "none"):
            raise Invalid("tool_choice: only 'auto' and 'none' are available.", param="tool_choice")
        if self.top_logprobs and not self.logprobs:
            raise Invalid("top_logprobs: needs logprobs=true.", param="top_logprobs")
        if self.metadata and not self.store:
            raise Invalid("metadata: is kept with store=true only.", param="metadata")
        if None not in (self.max_completion_tokens, self.max_tokens) and self.max_completion_tokens != self.max_tokens:
            raise Invalid("max_tokens: differs from max_completion_tokens; name one.", param="max_tokens")
        return self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens})

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens come with each; None where log-probabilities are not asked for."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def stores(self) -> list[str]:
        """Vector stores to retrieve from.

        Raises:
            Invalid: there are too many.
        """
        tools = [] if self.tool_choice == "none" else self.tools or []
        from_tools = [store for tool in tools for store in tool.vector_store_ids or []]
        stores = list(dict.fromkeys([*(self.vector_store_ids or []), *from_tools]))
        if len(stores) > MOST_STORES:
            raise Invalid(f"vector_store_ids: at most {MOST_STORES} stores.", param="vector_store_ids")
        return stores

    def plain_messages(self) -> list[dict[str, str]]:
        """The messages as role and text; see `plain`."""
        return plain(self.messages)

    @property
    def kept(self) -> Kept | None:
        """What is kept of its content; None where nothing is."""
        if not self.store:
            return None
        return Kept([message.model_dump(exclude_unset=True) for message in self.messages], self.metadata or {})


class EvaluationAsked(Body):
    """What a candidate, or what it is compared with, is asked in a test; it answers as surely as it can."""

    model: Name = Field(min_length=1)
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int = Field(ge=1)
    stop: list[StopText] = Field(default_factory=list, max_length=MOST_STOPS)

    def chat(self) -> ChatAsked:
        """The chat that a person would have."""
        return ChatAsked(
            model=self.model, messages=self.messages, max_tokens=self.max_tokens, stop=self.stop, temperature=0
        )


class ScoreAsked(Body):
    """A text of which is asked what it is worth to a candidate, or to what that is compared with."""

    model: Name = Field(min_length=1)
    text: Text

    def completion(self) -> CompletionAsked:
        """The completion that a person would ask for to learn that."""
        return CompletionAsked(model=self.model, prompt=self.text, max_tokens=0, echo=True, logprobs=0)


class TokenCountAsked(Body):
    """A text whose tokens are to be counted."""

    model: Name = Field(min_length=1)
    text: Text


class CompletionAsked(Common):
    """`POST /v1/completions`."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {"suffix": ("",)}
    ID_PREFIX = "cmpl-"

    prompt: Any
    max_tokens: int | None = Field(None, ge=0)
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens come with each; None where log-probabilities are not asked for."""
        return self.logprobs

    @property
    def requests(self) -> int:
        """As how many requests it counts: each prompt is one."""
        return len(self.prompts)

    @property
    def echoes(self) -> bool:
        """Whether answers begin with their prompts."""
        return bool(self.echo)

    @property
    def scores(self) -> bool:
        """Whether it asks what the prompts themselves are worth; with no tokens to come, what else would be read?"""
        return self.echoes and (self.logprobs is not None or self.max_tokens == 0)

    @property
    def prompts(self) -> list[str]:
        """The prompts, each to be completed."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def checked(self) -> CompletionAsked:
        """The request itself.

        Raises:
            Invalid: an empty prompt, too many, or something that is not available.
        """
        self.refuse()
        if self.best_of not in (None, self.choices):
            raise Invalid("best_of: is not available; leave it out, or make it equal to n.", param="best_of")
        if self.max_tokens == 0 and not self.echo:
            raise Invalid("max_tokens: 0 is for echo=true, which gives the prompt back.", param="max_tokens")
        prompts = self.prompts
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise Invalid("prompt: must be a text or a list of texts; token ids are not taken.", param="prompt")
        if not prompts or not all(prompts):
            raise Invalid("prompt: is empty.", param="prompt")
        if len(prompts) * self.choices > MOST_ANSWERS:
            raise Invalid(
                f"prompt: {len(prompts)} prompts with n={self.choices} are more than {MOST_ANSWERS} answers; "
                "send them in several requests.",
                param="prompt",
            )
        return self

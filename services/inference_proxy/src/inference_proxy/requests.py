"""OpenAI's requests for chat and completions: what is understood, and a clear no to what is not."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Invalid
from inference_proxy.tgi import Sampling

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
PARTS = ("text", "refusal")
MOST_CHOICES = 4
MOST_ANSWERS = 16
MOST_STORES = 10


class Tool(BaseModel):
    """A tool of a chat request."""

    type: str
    vector_store_ids: list[str] | None = None


class Common(BaseModel):
    """What both kinds of request share. Unknown fields are ignored, as OpenAI's clients send new ones at times."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=2)
    user: str | None = None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def stop_texts(self) -> list[str]:
        """Stop sequences as a list, at most four."""
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        if len(stops) > 4 or not all(stops):
            raise Invalid("stop: at most four texts, none of them empty.", param="stop")
        return stops

    def sampling(self, default_tokens: int, stop_tokens: list[str], choice: int, top: int | None) -> Sampling:
        """How the engine should generate the given choice."""
        return Sampling(
            max_new_tokens=self.max_tokens or default_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed + choice if self.seed is not None else None,
            stop=[*self.stop_texts, *stop_tokens],
            top_n_tokens=top or None,
            frequency_penalty=self.frequency_penalty,
        )


class ChatAsked(Common):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    vector_store_ids: list[str] | None = None

    def checked(self) -> ChatAsked:
        """The request with its limit in one place.

        Raises:
            Invalid: it asks for something that is not there.
        """
        if (self.response_format or {}).get("type", "text") != "text":
            raise Invalid("response_format: only 'text' is available.", param="response_format")
        if any(tool.type != "file_search" for tool in self.tools or []):
            raise Invalid("tools: only 'file_search' with vector_store_ids is available.", param="tools")
        return self.model_copy(update={"max_tokens": self.max_completion_tokens or self.max_tokens})

    @property
    def stores(self) -> list[str]:
        """Vector stores to retrieve from.

        Raises:
            Invalid: there are too many.
        """
        from_tools = [store for tool in self.tools or [] for store in tool.vector_store_ids or []]
        stores = list(dict.fromkeys([*(self.vector_store_ids or []), *from_tools]))
        if len(stores) > MOST_STORES:
            raise Invalid(f"vector_store_ids: at most {MOST_STORES} stores.", param="vector_store_ids")
        return stores

    def plain_messages(self) -> list[dict[str, str]]:
        """The messages as role and text.

        Raises:
            Invalid: an unknown role, or content that is not text.
        """
        return [
            {"role": _role(message, index), "content": _content(message.get("content"), index)}
            for index, message in enumerate(self.messages)
        ]


class CompletionAsked(Common):
    """`POST /v1/completions`."""

    prompt: str | list[str]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    suffix: str | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts, each to be completed.

        Raises:
            Invalid: an empty one, too many, or something that is not available.
        """
        if self.suffix or self.echo:
            raise Invalid("echo and suffix are not available; leave them out.", param="echo" if self.echo else "suffix")
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not prompts or not all(prompts):
            raise Invalid("prompt: is empty.", param="prompt")
        for prompt in prompts:
            _whole(prompt, "prompt")
        if len(prompts) * self.choices > MOST_ANSWERS:
            raise Invalid(
                f"prompt: {len(prompts)} prompts with n={self.choices} are more than {MOST_ANSWERS} answers; "
                "send them in several requests.",
                param="prompt",
            )
        return prompts


def _role(message: dict[str, Any], index: int) -> str:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Invalid(
            f"messages[{index}].role: {role!r} is not one of {', '.join(ROLES)}.", param=f"messages[{index}].role"
        )
    return ROLES[role]


def _content(content: Any, index: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return _whole(content, f"messages[{index}].content")
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in PARTS and isinstance(part.get(part["type"]), str)
        for part in content
    ):
        return _whole("".join(part[part["type"]] for part in content), f"messages[{index}].content")
    raise Invalid(f"messages[{index}].content: only text is understood.", param=f"messages[{index}].content")


def _whole(text: str, param: str) -> str:
    """The text, if it is Unicode: JSON can escape half of a surrogate pair, which nothing after this can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{param}: character {error.start} is half of a surrogate pair.", param=param) from error
    return text

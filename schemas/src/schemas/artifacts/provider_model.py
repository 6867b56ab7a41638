"""A base model of another provider: a folder that holds `provider.json` alone, as there are no weights."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, TypeAdapter, model_validator

from schemas.artifacts.price import Price

PROVIDER_FILE = "provider.json"

Lackable = Literal[
    "temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs"
]
"""Fields of a request that a provider may do without."""


def _address(text: str) -> str:
    try:
        address = TypeAdapter(HttpUrl).validate_python(text)
    except ValueError:
        raise ValueError("is no address of http or https") from None  # the error itself shows the text
    if address.username or address.password or address.query or address.fragment:
        raise ValueError("must hold no user, password, query or fragment; a key goes into a file of its own")
    return text.rstrip("/")


def _is_own(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Provider(BaseModel):
    """How a provider is asked; its key is in none of our files but the one named here."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    kind: Literal["openai"] = Field(description="Its API: OpenAI's.")
    url: Annotated[str, Field(max_length=2000), AfterValidator(_address)] = Field(
        description="Where that API begins, for example `https://api.openai.com/v1`."
    )
    model: str = Field(min_length=1, max_length=256, description="What the provider calls the model.")
    key_file: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name of the file, in the proxy's folder of keys, that holds the key; absent where none is needed.",
    )
    completions: bool = Field(False, description="Whether it has `/completions` as well as `/chat/completions`.")
    scores: bool = Field(
        False, description="Whether its `/completions` takes `echo` with `logprobs` and `max_tokens` of 0."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What its chats call the limit of an answer."
    )
    lacks: list[Lackable] = Field(
        default_factory=list, description="Fields that it does not honour; a request with one is refused."
    )
    unencrypted: bool = Field(
        False, description="Whether the key may go to an `http` address that is not this machine's own."
    )

    @model_validator(mode="after")
    def _key_goes_out_encrypted(self) -> Self:
        address = urlsplit(self.url)
        if self.key_file and address.scheme == "http" and not self.unencrypted and not _is_own(address.hostname or ""):
            raise ValueError(
                "with a key_file the url must be of https, as the key would go out readable; "
                "where the way there is safe, say so with `unencrypted: true`"
            )
        return self


class ProviderModelSpec(BaseModel):
    """The contents of `provider.json`."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str = Field(min_length=1, max_length=256, description="Name of the base model, equal to its folder's.")
    engine: Provider = Field(description="Who answers, and how they are asked.")
    context_length: int = Field(ge=1, description="Longest prompt and answer together, in tokens.")
    price: Price | None = Field(None, description="What its tokens cost.")
    license: str | None = Field(None, description="Terms it is used under.")

"""The inference proxy's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the proxy reads from the environment besides the settings every service has."""

    inference_in_flight: int = Field(64, description="Requests to the engines at the same time; more get 429.")
    inference_tenant_in_flight: int = Field(16, description="Of those, at most this many of one tenant.")
    inference_evaluation_in_flight: int = Field(
        64, ge=1, description="Requests that test candidates at the same time, apart from those of people."
    )
    inference_seconds: float = Field(300, description="Longest an answer may take.")
    inference_retrieved_characters: int = Field(
        4000, description="Most characters of retrieved text put into a prompt."
    )
    inference_shown_bytes: int = Field(
        3000, ge=1, description="Most bytes of training rows put into a prompt where an arm answers by its base model."
    )
    inference_keys_dir: Path | None = Field(
        None, description="Folder of the files that hold the keys of other providers, named as their `key_file`."
    )
    inference_cpu_second_price: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="What a second of processor time of an arm costs, in the currency of the base models' prices.",
    )
    requests_per_minute: int = Field(3000, ge=1, description="Answers a minute of a person without a key.")
    tokens_per_minute: int = Field(200_000, ge=1, description="Tokens a minute of a person without a key.")
    route_stale_seconds: float = Field(
        600.0, description="How long a route once seen is believed while the registry cannot be asked."
    )

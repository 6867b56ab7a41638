"""What the model server is asked: TGI's bodies, and the parameters taken beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from chassis.bodies import Body
from model_server.errors import ParameterRefused
from model_server.sequence import GenerateRequest

MOST_STOPS = 16
MOST_BIASES = 1024
BEYOND_TGI = ["presence_penalty", "logit_bias", "score"]
"""What is taken here that TGI does not have; `/info` names it, so that a client may ask first.

`score`: with `decoder_input_details`, `max_new_tokens` may be 0, and `top_n_tokens` counts for the prompt too.
"""

Name = Annotated[str, Field(max_length=200)]
StopText = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0)]
Prompt = Annotated[str, Field(max_length=16 * 1024 * 1024)]


class Parameters(Body):
    """TGI's generation parameters, and those of `BEYOND_TGI`."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {
        "best_of": (1,),
        "typical_p": (1.0,),
        "watermark": (False,),
    }

    adapter_id: Name | None = None
    decoder_input_details: bool = False
    max_new_tokens: int | None = Field(100, ge=0)
    do_sample: bool = False
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: list[StopText] = Field(default_factory=list, max_length=MOST_STOPS)
    repetition_penalty: float | None = Field(None, gt=0)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[TokenId, float] | None = Field(None, max_length=MOST_BIASES)
    top_n_tokens: int | None = Field(None, ge=0, le=20)
    details: bool = True
    return_full_text: bool | None = False


class GenerateBody(Body):
    """The body of `/generate` and `/generate_stream`; `stream` is said by the route."""

    inputs: Prompt = Field(min_length=1)
    parameters: Parameters | None = None
    stream: bool = False

    @property
    def asked(self) -> Parameters:
        """Its parameters, or those it has by itself."""
        return self.parameters or Parameters()

    @property
    def generates(self) -> bool:
        """Whether an answer is wanted, and not only what the prompt's tokens are worth.

        Raises:
            ParameterRefused: neither is.
        """
        if self.asked.max_new_tokens == 0 and not self.asked.decoder_input_details:
            raise ParameterRefused("`max_new_tokens` must be strictly positive")
        return self.asked.max_new_tokens != 0

    def request(self) -> GenerateRequest:
        """For the engine."""
        given = self.asked
        return GenerateRequest(
            inputs=self.inputs,
            adapter_id=given.adapter_id,
            max_new_tokens=given.max_new_tokens,
            do_sample=given.do_sample,
            temperature=given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
            seed=given.seed,
            stop=given.stop,
            repetition_penalty=given.repetition_penalty,
            frequency_penalty=given.frequency_penalty or 0,
            presence_penalty=given.presence_penalty or 0,
            logit_bias=given.logit_bias or {},
            top_n_tokens=given.top_n_tokens or 0,
        )


class TokenizeBody(Body):
    """The body of `/tokenize`."""

    inputs: Prompt
    add_special_tokens: bool = True

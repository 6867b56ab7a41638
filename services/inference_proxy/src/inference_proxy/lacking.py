"""What a request asks for, and what answers for its model does not have."""

from __future__ import annotations

from chassis.errors import Invalid
from inference_proxy.engines import Engine, ModelLoading, Prompt, Sampling, Target
from inference_proxy.routing import Route
from schemas.http.inference_proxy import UNSUPPORTED

LACKING = {
    "prompt": ("prompt", "this model answers chats only; ask /v1/chat/completions."),
    "echo": ("echo", "the engine of this model does not tell what a prompt is worth. Leave out echo or logprobs."),
    "echo_top": ("logprobs", "the engine of this model tells no likeliest tokens of a prompt. Ask with logprobs=0."),
}
"""By what an engine lacks, the field of the request to name and what to say."""


async def refuse_lacking(
    engine: Engine, route: Route, target: Target, prompt: Prompt, sampling: Sampling, *, scores: bool
) -> None:
    """Refuse what the engine does not have: it would ignore it.

    Raises:
        ModelLoading: an arm does not, and the adapter that has it is away for a while.
        Invalid: nothing that answers for the model does.
    """
    of_prompt = ["echo", *(["echo_top"] if sampling.top_logprobs else [])] if scores else []
    wanted = [prompt.param, *sampling.wanted, *of_prompt]
    has = await engine.capabilities(target, wanted)
    for name in wanted:
        if name not in has or (name == "prompt" and route.generates):
            if route.stands_in and (name == "prompt" or not route.generates):
                raise ModelLoading
            param, why = LACKING.get(name, (name, "the engine of this model does not have it. Leave it out."))
            if route.arm and not route.generates:
                why = "this model answers by its training rows at the moment, to which it means nothing. Leave it out."
            raise Invalid(f"{param}: {why}", code=UNSUPPORTED, param=param)

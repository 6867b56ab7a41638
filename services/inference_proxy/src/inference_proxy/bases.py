"""Base models as the proxy needs them: who answers for one, and what its engine is given to answer.

Where the weights are ours, chat messages become text by the model's own template, in a sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chassis.believed import Believed
from chassis.errors import Invalid, NotFound
from chassis.peers import Call, Peer
from inference_proxy.engines import Prompt
from schemas.artifacts import BaseModelSpec, Price, ProviderModelSpec
from schemas.http.registry import PROVIDER_MODEL
from schemas.questions import question_of

BELIEVED_SECONDS = 60.0
STALE_SECONDS = 600.0
FREE = Price(input=0, output=0)


class Base:
    """A base model with weights here: template and stop tokens.

    Args:
        spec: its `base.json`.
    """

    provider = None

    def __init__(self, spec: BaseModelSpec) -> None:
        self.id = spec.id
        self.stop_tokens = spec.stop_tokens
        self.price = spec.price
        self.context_length = spec.context_length
        self._tokens = spec.vocab_size
        self._bos = spec.bos_token or ""
        self._eos = spec.eos_token or ""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        # transformers marks the assistant's text with {% generation %}; here it is plain text.
        source = spec.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        source = source.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
        source = source.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
        self._template = environment.from_string(source)

    def check(self, messages: int, token_ids: Iterable[int]) -> None:
        """Refuse what cannot be right for this model before work is spent on it.

        Args:
            messages: how many; each takes a token at least.
            token_ids: that the request names.

        Raises:
            Invalid: too many messages, or a token that the model does not have.
        """
        _fit(messages, self.context_length)
        unknown = next((one for one in token_ids if one >= self._tokens), None)
        if unknown is not None:
            raise Invalid(f"logit_bias: this model has no token {unknown}.", param="logit_bias")

    def prompt(self, messages: list[dict[str, str]]) -> Prompt:
        """What the engine is given for a chat.

        Raises:
            Invalid: the template does not allow these messages.
        """
        return Prompt("messages", text=self.render(messages))

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt, ending where the assistant begins; without the begin-of-text token, which TGI adds.

        Raises:
            Invalid: the template does not allow these messages.
        """
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=True, bos_token=self._bos, eos_token=self._eos
            )
        except TemplateError as error:
            raise Invalid(f"messages: this model cannot take them: {error}", param="messages") from error
        return text.removeprefix(self._bos) if self._bos else text


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _fit(messages: int, context_length: int) -> None:
    if messages > context_length:
        raise Invalid(
            f"messages: {messages} messages do not fit this model's context of {context_length} tokens.",
            code="context_length_exceeded",
            param="messages",
        )


class ProviderBase:
    """A base model of another provider, which renders messages itself and knows its own tokens.

    Args:
        spec: its `provider.json`.
    """

    stop_tokens: Sequence[str] = ()

    def __init__(self, spec: ProviderModelSpec) -> None:
        self.id = spec.id
        self.provider = spec.engine
        self.price = spec.price
        self._context_length = spec.context_length

    def check(self, messages: int, _token_ids: Iterable[int]) -> None:
        """Refuse more messages than its context has tokens.

        Raises:
            Invalid: there are.
        """
        _fit(messages, self._context_length)

    def prompt(self, messages: list[dict[str, str]]) -> Prompt:
        """What the engine is given for a chat: the messages as they are."""
        return Prompt("messages", messages=messages)


class ArmBase:
    """What stands for a base model where an arm answers: it reads one question, and none of the base's tokens.

    Args:
        base_id: the base model of the arm's job.
        price: of an answer; None where the base model's is not known.
        stands_in: whether the arm answers only until a replica holds the adapter of its name.
    """

    provider = None
    stop_tokens: Sequence[str] = ()

    def __init__(self, base_id: str, price: Price | None, *, stands_in: bool) -> None:
        self.id = base_id
        self.price = price
        self.stands_in = stands_in

    def check(self, _messages: int, _token_ids: Iterable[int]) -> None:
        """Nothing is too long for an arm; that it biases no token its engine says."""

    def prompt(self, messages: list[dict[str, str]]) -> Prompt:
        """What the engine is given for a chat: the question that an arm's training rows would be."""
        return Prompt("messages", text=question_of(messages))


class Bases:
    """Base models by id, as the registry tells them.

    Args:
        registry: the source of truth.
        stale_seconds: how long one is believed while the registry cannot be asked.
        arms_priced: whether what an arm takes has a price, which its answer then has whatever its base model's.
    """

    def __init__(self, registry: Peer, stale_seconds: float = STALE_SECONDS, *, arms_priced: bool = False) -> None:
        self._registry = registry
        self._arms_priced = arms_priced
        self._known: Believed[str, Base | ProviderBase] = Believed(BELIEVED_SECONDS, stale_seconds)

    async def get(self, base_id: str, tenant_id: str, timeout: float | None = None) -> Base | ProviderBase:
        """A base model.

        Args:
            base_id: its name.
            tenant_id: asked for.
            timeout: seconds, if the registry must answer sooner than usual.

        Raises:
            NotFound: there is none of that id.
        """
        return await self._known.get(base_id, lambda deadline: self._ask(base_id, tenant_id, deadline or timeout))

    async def of_arm(self, base_id: str, tenant_id: str, *, stands_in: bool) -> ArmBase:
        """What stands for the base model of an arm, whose tokens cost nothing where an answer has a price.

        It is not needed to answer: where it is not known, and arms have no price, neither has an answer.
        """
        priced = self._arms_priced or await self._has_price(base_id, tenant_id)
        return ArmBase(base_id, FREE if priced else None, stands_in=stands_in)

    async def _has_price(self, base_id: str, tenant_id: str) -> bool:
        try:
            return (await self.get(base_id, tenant_id)).price is not None
        except NotFound:
            return False

    async def _ask(self, base_id: str, tenant_id: str, timeout: float | None) -> Base | ProviderBase:
        asked: Call = {"tenant_id": tenant_id, "timeout": timeout}
        try:
            return Base(await self._registry.read(BaseModelSpec, "/internal/base_models/{}", base_id, **asked))
        except NotFound as error:
            if error.code != PROVIDER_MODEL:
                raise
        told = await self._registry.read(ProviderModelSpec, "/internal/provider_models/{}", base_id, **asked)
        return ProviderBase(told)

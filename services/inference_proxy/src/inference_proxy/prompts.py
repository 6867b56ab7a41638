"""Chat messages to the text a base model is given: its own template, in a sandbox."""

from __future__ import annotations

from collections.abc import Iterable

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chassis.errors import Invalid
from chassis.peers import Peer
from schemas.artifacts import BaseModelSpec


class Base:
    """A base model as the proxy needs it: template and stop tokens.

    Args:
        spec: its `base.json`.
    """

    def __init__(self, spec: BaseModelSpec) -> None:
        self.id = spec.id
        self.digest = spec.digest
        self.stop_tokens = spec.stop_tokens
        self._context_length = spec.context_length
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
        if messages > self._context_length:
            raise Invalid(
                f"messages: {messages} messages do not fit this model's context of {self._context_length} tokens.",
                code="context_length_exceeded",
                param="messages",
            )
        unknown = next((one for one in token_ids if one >= self._tokens), None)
        if unknown is not None:
            raise Invalid(f"logit_bias: this model has no token {unknown}.", param="logit_bias")

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


class Bases:
    """Base models by id, asked of the registry once."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._known: dict[str, Base] = {}

    async def get(self, base_id: str, tenant_id: str, **deadline: float) -> Base:
        """A base model.

        Args:
            base_id: its name.
            tenant_id: asked for.
            deadline: `timeout` in seconds, if the registry must answer sooner than usual.

        Raises:
            NotFound: there is none of that id.
        """
        if base_id not in self._known:
            spec = await self._registry.read(
                BaseModelSpec, "/internal/base_models/{}", base_id, tenant_id=tenant_id, **deadline
            )
            self._known[base_id] = Base(spec)
        return self._known[base_id]

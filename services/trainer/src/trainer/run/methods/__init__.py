"""The training methods: a file each, and this table of them."""

from __future__ import annotations

from chassis.errors import Invalid
from chassis.text import quoted
from trainer.run.methods.method import Method, Source
from trainer.run.methods.pretrain import Pretrain
from trainer.run.methods.sft import Supervised

DEFAULT = "supervised"
"""What a job is trained by that does not say."""

METHODS: dict[str, Method] = {one.name: one for one in (Supervised(), Pretrain())}

__all__ = ["DEFAULT", "METHODS", "Method", "Source", "method_of"]


def method_of(name: str) -> Method:
    """The method of that name.

    Raises:
        Invalid: there is none; the message says which there are.
    """
    if name not in METHODS:
        names = " or ".join(f"'{one}'" for one in METHODS)
        raise Invalid(f"method.type: {quoted(name, 100)} is not available; use {names}.", param="method.type")
    return METHODS[name]

"""Why the engine does not answer a request."""

from __future__ import annotations


class AdapterNotFound(Exception):
    """No adapter of that id is loaded; the base model never answers in its place."""


class BaseNotFound(Exception):
    """Another base model is asked than the one that is loaded; it never answers in the other's place."""


class BaseNotProven(Exception):
    """The files loaded were not found to be the base model's, or not yet; nobody is answered."""


class InputTooLong(Exception):
    """The prompt and the answer together do not fit."""


class Overloaded(Exception):
    """The queue is full."""


class EngineStopped(Exception):
    """The engine's thread has ended; nothing is answered here any more."""


class ParameterRefused(Exception):
    """A parameter asks for what this model does not have."""

"""What numbers a base model computes in: those of its weights, unless this machine is much faster in float32."""

from arithmetic.choice import Products, answering, fastest, training

__all__ = ["Products", "answering", "fastest", "training"]

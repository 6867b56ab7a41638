"""The whole suite on one machine without Docker: real wire protocols, one supervisor, one data folder."""

from localstack.stack import LocalStack, StackError

__all__ = ["LocalStack", "StackError"]

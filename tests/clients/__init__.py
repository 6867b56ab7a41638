"""Unmodified clients of others, driven against a whole stack: the Node SDK, LangChain's own standard tests."""

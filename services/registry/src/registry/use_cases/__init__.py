"""What the registry does: it registers, judges, pins and hands out models, and tells what serves a name, and where."""

from registry.use_cases.downloading import Archive, Downloading
from registry.use_cases.gate import Gate
from registry.use_cases.naming import Naming
from registry.use_cases.pinning import Pinning
from registry.use_cases.serving import HandOver, Route, Serving

__all__ = ["Archive", "Downloading", "Gate", "HandOver", "Naming", "Pinning", "Route", "Serving"]

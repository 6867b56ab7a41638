"""What the registry does: registers candidates, works the gate, pins, resolves names, tells what is served where."""

from registry.use_cases.gate import Gate
from registry.use_cases.naming import Naming
from registry.use_cases.pinning import Pinning
from registry.use_cases.serving import HandOver, Route, Serving

__all__ = ["Gate", "HandOver", "Naming", "Pinning", "Route", "Serving"]

"""What tests share: the local stack, isolated spaces on it, running services, polling, event probes."""

from testkit.poll import eventually
from testkit.running import running
from testkit.space import Addresses, Space

__all__ = ["Addresses", "Space", "eventually", "running"]

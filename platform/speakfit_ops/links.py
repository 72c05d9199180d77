"""The links between the parts of a local stack that faults can be put on.

Each is a port of the fault proxy (`python -m loadtest.faults`) in place of the server's own; the
part that uses it is told so by the setting in which it finds that server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from speakfit_ops.servers import LOOPBACK


@dataclass(frozen=True, kw_only=True)
class LinkPlan:
    """One link: who uses it, the setting that names its server, where that is, and our port."""

    part: str
    setting: str
    server: str
    address: str
    """`HOST:PORT` of the server itself."""
    port: int = 0

    @property
    def name(self) -> str:
        """As faults and drills call it."""
        return f"{self.part}-{self.server}"

    @property
    def option(self) -> str:
        """As `python -m loadtest.faults --link` takes it."""
        return f"{self.name}={self.port}:{self.address}"

    def detour(self, environment: Mapping[str, str]) -> str:
        """The setting's value with the proxy in the server's place."""
        return environment[self.setting].replace(self.address, f"{LOOPBACK}:{self.port}")


def link_plans(*, database: str, broker: str, monitoring: str, console: str) -> list[LinkPlan]:
    """Every link of the stack, by the addresses of its servers."""
    plans = [
        LinkPlan(part=part, setting=setting, server=server, address=address)
        for part in ("api", "worker")
        for setting, server, address in (
            ("DATABASE_URL", "postgres", database),
            ("REDIS_URL", "valkey", broker),
            ("MONITORING_EMULATOR_HOST", "monitoring", monitoring),
        )
    ]
    pagerduty = LinkPlan(
        part="monitoring", setting="PAGERDUTY_EVENTS_URL", server="pagerduty", address=console
    )
    return [*plans, pagerduty]

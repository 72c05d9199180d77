"""One command's conversation with one target about the boards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from alerts.plan import Plan
from alerts.policies import CATALOG
from alerts.terminal import console, tell
from dashboards.catalog import BOARDS
from dashboards.gateway import Gateway
from dashboards.plan import Live, desired_state, make_plan
from dashboards.shape import Json
from speakfit.settings import Settings, read_settings
from speakfit.target import Target, resolve_target, with_stack_settings

if TYPE_CHECKING:
    from rich.console import Console


class Session:
    """One command's conversation with one target."""

    keys: Mapping[str, str] = {}

    def __init__(self, target: Target, settings: Settings, gateway: Gateway, out: Console) -> None:
        self.target = target
        self.settings = settings
        self.gateway = gateway
        self.out = out

    def require_keys(self, planned: Plan) -> None:
        """Dashboards need no secret."""

    def read(self) -> Live:
        """What is live now."""
        return self.gateway.read()

    @cached_property
    def desired(self) -> dict[str, Json]:
        """What the boards want."""
        return desired_state(
            BOARDS, catalog=CATALOG.name, runbook_base_url=self.settings.runbook_base_url
        )

    def plan(self, live: Live, *, prune: bool) -> Plan:
        """Compare what the boards want with what is live."""
        return make_plan(
            self.desired, live, catalog=CATALOG.name, project=self.target.project, prune=prune
        )


@contextmanager
def open_session(emulator: str | None, project: str | None, *, as_json: bool) -> Iterator[Session]:
    """Choose the target, say which it is, and talk to it; `as_json` keeps stdout for JSON."""
    settings = read_settings()
    target = resolve_target(settings, emulator=emulator, project=project)
    settings = with_stack_settings(settings, target)
    out = console(stderr=as_json)
    tell(out, f"Target: {target}", ("Target:", "bold"))
    with Gateway(target) as gateway:
        yield Session(target, settings, gateway, out)

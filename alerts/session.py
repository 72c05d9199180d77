"""One command's conversation with one target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from alerts.gateway import Gateway
from alerts.plan import Desired, Live, Plan, desired_state, make_plan
from alerts.policy import Catalog
from alerts.secret import channel_digests, missing_secret, read_secrets
from alerts.terminal import console, tell
from speakfit.settings import Settings, read_settings
from speakfit.target import Target, resolve_target, target_environment, with_stack_settings

if TYPE_CHECKING:
    from rich.console import Console


class Session:
    """One command's conversation with one target."""

    def __init__(
        self,
        catalog: Catalog,
        target: Target,
        settings: Settings,
        gateway: Gateway,
        out: Console,
        *,
        keys: Mapping[str, str],
    ) -> None:
        self.catalog = catalog
        self.target = target
        self.settings = settings
        self.gateway = gateway
        self.out = out
        self.keys = keys

    def require_keys(self, planned: Plan) -> None:
        """A SettingsError names the first secret that a plan needs and nobody gave."""
        needed = {change.id for change in planned.changes if change.secret}
        for channel in self.catalog.channels:
            if channel.id in needed - self.keys.keys():
                raise missing_secret(channel)

    def read(self) -> Live:
        """What is live now."""
        return self.gateway.read(self.catalog)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each secret that is at hand, by channel id."""
        return channel_digests(self.catalog, self.keys)

    @cached_property
    def desired(self) -> Desired:
        """What the catalog wants."""
        return desired_state(
            self.catalog,
            runbook_base_url=self.settings.runbook_base_url,
            digests=self.digests,
        )

    def plan(self, live: Live, *, prune: bool) -> Plan:
        """Compare what the catalog wants with what is live."""
        return make_plan(self.desired, live, prune=prune)


@contextmanager
def open_session(
    catalog: Catalog, emulator: str | None, project: str | None, *, as_json: bool
) -> Iterator[Session]:
    """Choose the target, say which it is, and talk to it; `as_json` keeps stdout for JSON."""
    settings = read_settings()
    target = resolve_target(settings, emulator=emulator, project=project)
    settings = with_stack_settings(settings, target)
    keys = read_secrets(catalog, target_environment(target))
    out = console(stderr=as_json)
    tell(out, f"Target: {target}", ("Target:", "bold"))
    with Gateway(target) as gateway:
        yield Session(catalog, target, settings, gateway, out, keys=keys)

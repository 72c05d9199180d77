"""One command's conversation with one target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alerts.apply import Gateway
from alerts.encode import key_digest
from alerts.plan import Plan, desired_state, make_plan
from alerts.policy import Catalog
from alerts.terminal import console, tell
from speakfit.errors import CatalogError
from speakfit.settings import Settings, read_settings
from speakfit.target import Target, resolve_target, with_stack_settings

if TYPE_CHECKING:
    from rich.console import Console


class Session:
    """One command's conversation with one target."""

    def __init__(
        self, catalog: Catalog, target: Target, settings: Settings, gateway: Gateway, out: Console
    ) -> None:
        self.catalog = catalog
        self.target = target
        self.settings = settings
        self.gateway = gateway
        self.out = out
        self.keys = {}
        for channel in catalog.channels:
            if channel.secret not in type(settings).model_fields:
                raise CatalogError(
                    f"There is no setting {channel.secret!r}.",
                    where=f"catalog {catalog.name}, channel {channel.id}, secret",
                    todo="Name the setting that holds the integration key; docs/settings.md has "
                    "them all.",
                )
            secret = getattr(settings, channel.secret)
            if secret is not None:
                self.keys[channel.id] = secret.get_secret_value()

    def require_keys(self, planned: Plan) -> None:
        """A SettingsError names the first integration key that a plan needs and nobody gave."""
        needed = {change.id for change in planned.changes if change.secret}
        for channel in self.catalog.channels:
            if channel.id in needed:
                self.settings.require(channel.secret)

    def plan(self, *, prune: bool) -> Plan:
        """Read what is live and compare."""
        desired = desired_state(
            self.catalog,
            runbook_base_url=self.settings.runbook_base_url,
            digests={channel: key_digest(key) for channel, key in self.keys.items()},
        )
        return make_plan(desired, self.gateway.read(self.catalog), prune=prune)


@contextmanager
def open_session(
    catalog: Catalog, emulator: str | None, project: str | None, *, as_json: bool
) -> Iterator[Session]:
    """Choose the target, say which it is, and talk to it; `as_json` keeps stdout for JSON."""
    settings = read_settings()
    target = resolve_target(settings, emulator=emulator, project=project)
    settings = with_stack_settings(settings, target)
    out = console(stderr=as_json)
    tell(out, f"Target: {target}", ("Target:", "bold"))
    with Gateway(target) as gateway:
        yield Session(catalog, target, settings, gateway, out)

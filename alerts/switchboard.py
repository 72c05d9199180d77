"""Reads and writes both ends of a route: the service in PagerDuty and the channel that leads there.

Each write is whole by itself and everything is found again by its name, so whatever was cut off,
the next apply converges. A key goes from PagerDuty into the channel without anybody seeing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from alerts.apply import apply_plan
from alerts.catalog import find_policy
from alerts.channel import Channel, ChannelType
from alerts.doctor import Surroundings
from alerts.encode import Json
from alerts.incident import OPEN, IncidentRow, incident_row
from alerts.plan import Action, Plan
from alerts.policy import Catalog
from alerts.route import (
    Account,
    Part,
    RouteChange,
    RoutePlan,
    keys_of,
    plan_routes,
    routed_channels,
)
from alerts.secret import channel_digests, read_secrets
from alerts.session import Session
from alerts.terminal import tell
from speakfit.clock import from_ns
from speakfit.errors import ApplyError, CatalogError, PagerDutyError, TargetError
from speakfit.pagerduty import PagerDutyApi, Service
from speakfit.settings import Settings, read_settings
from speakfit.target import (
    policy_now_ns,
    resolve_target,
    target_environment,
    with_stack_settings,
)

if TYPE_CHECKING:
    from rich.console import Console


class Switchboard:
    """One catalog's conversation with PagerDuty and Cloud Monitoring about its routes."""

    def __init__(self, session: Session, api: PagerDutyApi) -> None:
        self.session = session
        self.api = api

    def account(self) -> Account:
        """What PagerDuty has now."""
        return _account(self.api)

    def channels(self) -> tuple[Json, ...]:
        """What Cloud Monitoring has now."""
        return self.session.gateway.channels()

    def plan(self) -> RoutePlan:
        """Read both ends and compare."""
        return self._plan(self.account())

    def _plan(self, account: Account) -> RoutePlan:
        catalog = self.session.catalog
        return plan_routes(
            catalog,
            account,
            self.channels(),
            digests=channel_digests(catalog, self.session.keys),
        )

    def apply(
        self, plan: RoutePlan, *, on_done: Callable[[RouteChange], None] = lambda change: None
    ) -> None:
        """Make the changes of a plan in order; an ApplyError says how many were done and left."""
        total = len(plan.changes)
        made: dict[str, Service] = {}
        for done, change in enumerate(plan.changes):
            if change.part is Part.CHANNEL:
                self._write_channels(plan.changes[done:], done, total, on_done)
                return
            with _told(change, done, total):
                self._write(change, made)
            on_done(change)

    def _write(self, change: RouteChange, made: dict[str, Service]) -> None:
        """Make one change in PagerDuty; `made` are the services of this run by name."""
        service = change.service
        assert service is not None
        live = change.live or made.get(service.name)
        if change.write is not None and change.action is Action.CREATE:
            made[service.name] = self.api.create_service(change.write)
        elif change.write is not None and live is not None:
            self.api.update_service(live, change.write)
        elif live is not None:
            self.api.create_integration(live.id, service.integration)

    def _write_channels(
        self,
        agreed: Sequence[RouteChange],
        done: int,
        total: int,
        on_done: Callable[[RouteChange], None],
    ) -> None:
        """Give channels their keys, all of which are known only now."""
        with _told(agreed[0], done, total):
            account = self.account()
            rest = [
                one
                for one in self._plan(account).changes
                if one.part is Part.CHANNEL and one.id in {change.id for change in agreed}
            ]
        for number, change in enumerate(rest, start=done):
            assert change.change is not None
            apply_plan(
                self.session.gateway,
                Plan(changes=(change.change,)),
                keys=keys_of(self.session.catalog, account),
                before=number,
                after=total - number - 1,
            )
            on_done(change)


@contextmanager
def _told(change: RouteChange, done: int, total: int) -> Iterator[None]:
    """Tells of whatever stops a change how far it was."""
    try:
        yield
    except (PagerDutyError, TargetError) as error:
        raise _stopped(error.what, error.todo, change, done, total) from error
    except KeyboardInterrupt as error:
        what = "you stopped it; this one write may or may not have happened"
        raise _stopped(what, "Apply again: it does the rest.", change, done, total) from error


def _stopped(what: str, todo: str, change: RouteChange, done: int, total: int) -> ApplyError:
    return ApplyError(
        f"Stopped after {done} of {total} changes: {what.removesuffix('.')}.",
        done=done,
        left=total - done,
        where=f"{change.action} {change.part} {change.id}",
        todo=todo,
    )


def _account(api: PagerDutyApi) -> Account:
    return Account(escalation_policies=api.escalation_policies(), services=tuple(api.services()))


@contextmanager
def _open_api(settings: Settings, out: Console) -> Iterator[PagerDutyApi]:
    """Say which PagerDuty it is, and talk to it; a SettingsError without a token."""
    token = settings.require("pagerduty_api_token")
    url = settings.pagerduty_api_url
    tell(out, f"PagerDuty: {url}", ("PagerDuty:", "bold"))
    with PagerDutyApi(url, token) as api:
        yield api


@contextmanager
def open_switchboard(session: Session) -> Iterator[Switchboard]:
    """Talk to both ends of the routes."""
    with _open_api(session.settings, session.out) as api:
        yield Switchboard(session, api)


@contextmanager
def open_surroundings(
    session: Session, channels: Sequence[Channel], *, timeout: timedelta
) -> Iterator[Surroundings]:
    """What an examination of these channels needs; PagerDuty only when one leads there."""
    shared: dict[str, Any] = {
        "catalog": session.catalog,
        "target": session.target,
        "channels": session.gateway.channels(),
        "keys": session.keys,
        "events_url": session.settings.pagerduty_events_url,
        "timeout": timeout,
    }
    if not any(channel.type is ChannelType.PAGERDUTY for channel in channels):
        yield Surroundings(**shared, api=None, account=None)
        return
    with _open_api(session.settings, session.out) as api:
        account: Account | PagerDutyError
        try:
            account = _account(api)
        except PagerDutyError as error:
            account = error
        yield Surroundings(**shared, api=api, account=account)


def read_incidents(
    catalog: Catalog,
    emulator: str | None,
    project: str | None,
    *,
    out: Console,
    since: timedelta | None,
    only_open: bool,
    policy: str | None,
) -> list[IncidentRow]:
    """Incidents of the services that the catalog's routes lead to, the latest first.

    PagerDuty is enough for it; a Cloud Monitoring, where one is named, only lends its clock. Raises
    CatalogError when no route leads to a service that PagerDuty has, or when neither the catalog
    nor an incident knows the policy.
    """
    settings, environment = read_settings(), dict(os.environ)
    target = None
    with suppress(TargetError):
        target = resolve_target(settings, emulator=emulator, project=project)
    if target is not None:
        settings = with_stack_settings(settings, target)
        environment = target_environment(target)
    keys = read_secrets(catalog, environment)
    with _open_api(settings, out) as api:
        now = datetime.now(UTC) if target is None else from_ns(policy_now_ns(target))
        found = api.incidents(
            since=None if since is None else now - since,
            statuses=OPEN if only_open else (),
            service_ids=_service_ids(catalog, keys, api.services()),
        )
        rows = [
            incident_row(
                one,
                catalog,
                acknowledged_by=one.acknowledged_by
                if one.status in OPEN
                else api.acknowledgers(one.id),
                now=now,
            )
            for one in reversed(found)
        ]
    if policy is None:
        return rows
    if all(row.policy != policy for row in rows):
        # Not a word for a policy that has none, but for one that nobody knows.
        find_policy(catalog, policy)
    return [row for row in rows if row.policy == policy]


def _service_ids(
    catalog: Catalog, keys: Mapping[str, str], services: Sequence[Service]
) -> list[str]:
    names = {
        channel.service.name.casefold()
        for channel in routed_channels(catalog)
        if channel.service is not None
    }
    known = set(keys.values())
    found = [
        service.id
        for service in services
        if service.name.casefold() in names or any(one.key in known for one in service.integrations)
    ]
    if not found:
        raise CatalogError(
            "No route leads to a service that PagerDuty has.",
            where=f"catalog {catalog.name}",
            todo="`python -m alerts route plan` tells what is missing.",
        )
    return found

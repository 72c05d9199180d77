"""Compares the routes of a catalog with PagerDuty and with the channels that lead there. Pure.

PagerDuty's objects are known by their names, as people know them: a service by its own, an
integration by its name within the service, an escalation policy by its name. Nothing is deleted.
Keys are only looked at through their digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from alerts.channel import Channel, PagerDutyService
from alerts.encode import Json, channel_json
from alerts.plan import Action, Change, Desired, Live, make_plan
from alerts.policy import Catalog
from alerts.secret import secret_digest
from alerts.wording import duration_words
from speakfit.errors import CatalogError
from speakfit.pagerduty import EVENTS_INTEGRATION, Integration, Service, ServiceSettings

_PENDING = "not-made-yet"
"""Stands for the digest of a key that PagerDuty will make; no digest looks like it."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a PagerDuty account has: ids of its escalation policies by name, and its services."""

    escalation_policies: Mapping[str, str]
    services: tuple[Service, ...]

    def service(self, name: str) -> Service | None:
        """A service by its name, which PagerDuty keeps unique whatever the case of its letters."""
        return next((one for one in self.services if _same(one.name, name)), None)


class Part(StrEnum):
    """What a change of a route is made to, in the order in which it is made."""

    SERVICE = "service"
    INTEGRATION = "integration"
    CHANNEL = "channel"


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """One setting that differs, in words; None on a side where it is absent."""

    name: str
    live: str | None
    desired: str | None


@dataclass(frozen=True, kw_only=True)
class RouteChange:
    """What must happen to one part of a route, and why; never a key."""

    action: Action
    part: Part
    id: str
    """A service's or a channel's name; `SERVICE / INTEGRATION` of an integration."""
    reason: str
    settings: tuple[SettingChange, ...] = ()
    service: PagerDutyService | None = None
    live: Service | None = None
    write: ServiceSettings | None = None
    """What is written of a service."""
    change: Change | None = None
    """What is written to Cloud Monitoring."""


@dataclass(frozen=True, kw_only=True)
class RoutePlan:
    """Everything that `route apply` would do, in order, and what somebody should know."""

    changes: tuple[RouteChange, ...]
    unchanged: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RouteKey:
    """The key of a route as PagerDuty has it; None while its integration does not exist."""

    channel: Channel
    service: Service | None
    integration: Integration | None = field(repr=False)


def routed_channels(catalog: Catalog) -> tuple[Channel, ...]:
    """The channels whose PagerDuty service the catalog declares."""
    return tuple(channel for channel in catalog.channels if channel.service is not None)


def plan_routes(
    catalog: Catalog,
    account: Account,
    channels: Sequence[Json],
    *,
    digests: Mapping[str, str],
) -> RoutePlan:
    """The plan that makes PagerDuty and its channels as the catalog declares them.

    `channels` are those of Cloud Monitoring; `digests` tells which keys the environment holds.
    Raises CatalogError for an escalation policy that does not exist, for an integration of another
    type, and for a service that two channels declare differently.
    """
    declared = _declared_services(catalog)
    services = [_plan_service(one, where, account) for one, where in declared.values()]
    integrations = _plan_integrations(catalog, account)
    keys = [route_key(channel, account) for channel in routed_channels(catalog)]
    parts = [*services, *integrations, *_plan_channels(catalog, keys, channels)]
    return RoutePlan(
        changes=tuple(part for part in parts if part.action is not Action.NONE),
        unchanged=sum(1 for part in parts if part.action is Action.NONE),
        notes=tuple(_notes(keys, digests)),
    )


def route_key(channel: Channel, account: Account) -> RouteKey:
    """Where PagerDuty keeps the key of a channel."""
    assert channel.service is not None
    service = account.service(channel.service.name)
    if service is None:
        return RouteKey(channel=channel, service=None, integration=None)
    named = [one for one in service.integrations if one.name == channel.service.integration]
    for one in named:
        if one.type == EVENTS_INTEGRATION:
            return RouteKey(channel=channel, service=service, integration=one)
    if named:
        raise CatalogError(
            f"The integration {named[0].name!r} is of the type {named[0].type}, whose events "
            "are not those of Cloud Monitoring.",
            where=f"channel {channel.id}, PagerDuty service {service.name}",
            todo="Name another integration, one of the type Events API v2 is made then.",
        )
    return RouteKey(channel=channel, service=service, integration=None)


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _declared_services(catalog: Catalog) -> dict[str, tuple[PagerDutyService, str]]:
    """Each service once, with the channel that declares it."""
    found: dict[str, tuple[PagerDutyService, str]] = {}
    for channel in routed_channels(catalog):
        service = channel.service
        assert service is not None
        where = f"catalog {catalog.name}, channel {channel.id}"
        known, first = found.setdefault(service.name.casefold(), (service, where))
        if _wishes(known) != _wishes(service):
            raise CatalogError(
                f"PagerDuty service {service.name!r} is declared in two ways.",
                where=f"{first}; channel {channel.id}",
                todo="Give both channels the same service, or name another one.",
            )
    return found


def _wishes(service: PagerDutyService) -> tuple[object, ...]:
    return (
        service.name,
        service.urgency,
        service.escalation_policy,
        service.acknowledgement_timeout,
        service.auto_resolve_timeout,
    )


def _plan_service(wanted: PagerDutyService, where: str, account: Account) -> RouteChange:
    policy = account.escalation_policies.get(wanted.escalation_policy)
    if policy is None:
        names = ", ".join(sorted(account.escalation_policies)) or "none"
        raise CatalogError(
            f"PagerDuty has no escalation policy {wanted.escalation_policy!r}.",
            where=f"{where}, PagerDuty service {wanted.name}",
            todo=f"Make it in PagerDuty, or name one that there is: {names}.",
        )
    write = ServiceSettings(
        name=wanted.name,
        urgency=wanted.urgency.value,
        escalation_policy_id=policy,
        acknowledgement_timeout=wanted.acknowledgement_timeout,
        auto_resolve_timeout=wanted.auto_resolve_timeout,
    )
    live = account.service(wanted.name)
    settings = _service_settings(live, wanted)
    if live is None:
        action, reason = Action.CREATE, ""
    elif settings:
        action, reason = Action.UPDATE, "PagerDuty has it otherwise"
    else:
        action, reason = Action.NONE, ""
    return RouteChange(
        action=action,
        part=Part.SERVICE,
        id=wanted.name,
        reason=reason,
        settings=settings,
        service=wanted,
        live=live,
        write=write,
    )


def _service_settings(live: Service | None, wanted: PagerDutyService) -> tuple[SettingChange, ...]:
    after = {
        "name": wanted.name,
        "urgency": wanted.urgency.value,
        "escalation policy": wanted.escalation_policy,
        "acknowledgement time-out": _timeout_words(wanted.acknowledgement_timeout),
        "auto-resolve time-out": _timeout_words(wanted.auto_resolve_timeout),
    }
    before: dict[str, str] = {}
    if live is None:
        # The name is its id, and what is off need not be said.
        after = {name: text for name, text in after.items() if text != "off" and name != "name"}
    else:
        before = {
            "name": live.name,
            "urgency": live.urgency,
            "escalation policy": live.escalation_policy,
            "acknowledgement time-out": _timeout_words(live.acknowledgement_timeout),
            "auto-resolve time-out": _timeout_words(live.auto_resolve_timeout),
        }
    return tuple(
        SettingChange(name=name, live=before.get(name), desired=text)
        for name, text in after.items()
        if before.get(name) != text
    )


def _timeout_words(timeout: timedelta | None) -> str:
    return "off" if timeout is None else duration_words(timeout)


def _plan_integrations(catalog: Catalog, account: Account) -> Iterable[RouteChange]:
    found: dict[str, RouteChange] = {}
    for channel in routed_channels(catalog):
        key = route_key(channel, account)
        service = channel.service
        assert service is not None
        identity = f"{service.name} / {service.integration}"
        found[identity] = RouteChange(
            action=Action.CREATE if key.integration is None else Action.NONE,
            part=Part.INTEGRATION,
            id=identity,
            reason="Events API v2, with a key of its own",
            service=service,
            live=key.service,
        )
    return found.values()


def _plan_channels(
    catalog: Catalog, keys: Sequence[RouteKey], channels: Sequence[Json]
) -> Iterable[RouteChange]:
    desired = Desired(
        catalog=catalog.name,
        metrics={},
        channels={
            key.channel.id: channel_json(
                key.channel,
                catalog,
                digest=_PENDING
                if key.integration is None
                else secret_digest(key.channel, key.integration.key),
            )
            for key in keys
        },
        policies={},
        secrets=frozenset(key.channel.id for key in keys),
    )
    plan = make_plan(desired, Live(channels=tuple(channels)))
    service = {key.channel.id: key.channel.service for key in keys}
    for change in (*plan.changes, *plan.unchanged):
        wanted = service[change.id]
        assert wanted is not None
        source = f"the key of {wanted.name} / {wanted.integration}"
        reason = f"with {source}"
        if change.action is Action.UPDATE:
            reason = f"{change.reason}: {source}" if change.secret else change.reason
        yield RouteChange(
            action=change.action, part=Part.CHANNEL, id=change.id, reason=reason, change=change
        )


def _notes(keys: Sequence[RouteKey], digests: Mapping[str, str]) -> Iterable[str]:
    for key in keys:
        channel = key.channel
        if key.service is not None and key.service.status == "disabled":
            yield (
                f"PagerDuty service {key.service.name} is disabled: it takes events and pages "
                "nobody. Enable it in PagerDuty."
            )
        at_hand = digests.get(channel.id)
        if key.integration is None or at_hand is None:
            continue
        if at_hand != secret_digest(channel, key.integration.key):
            yield (
                f"{channel.secret} holds another key than PagerDuty has. Unset or correct it: "
                "`python -m alerts apply` would put it into the channel again."
            )


def keys_of(catalog: Catalog, account: Account) -> dict[str, str]:
    """The integration key of every route that PagerDuty has, by channel id."""
    found = (route_key(channel, account) for channel in routed_channels(catalog))
    return {one.channel.id: one.integration.key for one in found if one.integration is not None}


def change_json(change: RouteChange) -> dict[str, Any]:
    """One change for machines."""
    return {
        "action": str(change.action),
        "part": str(change.part),
        "id": change.id,
        "reason": change.reason,
        "settings": [
            {"name": one.name, "live": one.live, "desired": one.desired} for one in change.settings
        ],
    }

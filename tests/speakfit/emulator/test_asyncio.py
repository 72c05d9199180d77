"""Google's asyncio clients over grpc.aio, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import NotFound
from google.cloud import monitoring_dashboard_v1, monitoring_v3
from google.protobuf import field_mask_pb2

from tests.speakfit.emulator.bench import METRIC, PROJECT, Bench, condition

_Life = Callable[[Bench, Callable[[Any], Any]], Awaitable[None]]


def _mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


async def _names(pager: Any) -> list[str]:
    return [one.name async for one in pager]


async def _live(
    client: Any,
    noun: str,
    *,
    collection: str,
    make: Callable[[str], Awaitable[Any]],
    parent: str = "name",
) -> None:
    """Create three, list them in pages of one, rename one through a mask, delete, ask again."""
    made = [await make(f"Number {n}") for n in range(3)]
    everything = getattr(client, f"list_{collection}")
    request = {parent: PROJECT, "page_size": 1}
    pager = await everything(request=request)
    assert [len(getattr(page, collection)) async for page in pager.pages] == [1, 1, 1]
    assert await _names(await everything(request=request)) == [one.name for one in made]
    first = made[0]
    first.display_name = "Renamed"
    update: dict[str, Any] = {noun: first}
    if noun != "dashboard":
        update["update_mask"] = _mask("display_name")
    changed = await getattr(client, f"update_{noun}")(request=update)
    assert changed.display_name == "Renamed"
    get = getattr(client, f"get_{noun}")
    assert await get(request={"name": first.name}) == changed
    if noun == "snooze":
        # Snoozes cannot be deleted.
        return
    await getattr(client, f"delete_{noun}")(request={"name": first.name})
    with pytest.raises(NotFound):
        await get(request={"name": first.name})


async def _policies(bench: Bench, connect: Callable[[Any], Any]) -> None:
    client = connect(monitoring_v3.AlertPolicyServiceAsyncClient)
    bench.write(bench.series(1))

    async def make(name: str) -> Any:
        policy = monitoring_v3.AlertPolicy(
            display_name=name, combiner="OR", conditions=[condition()]
        )
        return await client.create_alert_policy(name=PROJECT, alert_policy=policy)

    await _live(client, "alert_policy", collection="alert_policies", make=make)


async def _channels(bench: Bench, connect: Callable[[Any], Any]) -> None:
    client = connect(monitoring_v3.NotificationChannelServiceAsyncClient)

    async def make(name: str) -> Any:
        labels = {"email_address": "a@b.test"}
        return await client.create_notification_channel(
            name=PROJECT,
            notification_channel={"type_": "email", "display_name": name, "labels": labels},
        )

    await _live(client, "notification_channel", collection="notification_channels", make=make)


async def _snoozes(bench: Bench, connect: Callable[[Any], Any]) -> None:
    client = connect(monitoring_v3.SnoozeServiceAsyncClient)

    async def make(name: str) -> Any:
        start, end = ({"seconds": 1_800_000_000 + later} for later in (0, 600))
        return await client.create_snooze(
            parent=PROJECT,
            snooze={
                "display_name": name,
                "criteria": {"policies": [f"{PROJECT}/alertPolicies/1"]},
                "interval": {"start_time": start, "end_time": end},
            },
        )

    await _live(client, "snooze", collection="snoozes", make=make, parent="parent")


async def _dashboards(bench: Bench, connect: Callable[[Any], Any]) -> None:
    client = connect(monitoring_dashboard_v1.DashboardsServiceAsyncClient)

    async def make(name: str) -> Any:
        dashboard = {"display_name": name, "grid_layout": {}}
        return await client.create_dashboard(request={"parent": PROJECT, "dashboard": dashboard})

    await _live(client, "dashboard", collection="dashboards", make=make, parent="parent")


async def _time_series(bench: Bench, connect: Callable[[Any], Any]) -> None:
    client = connect(monitoring_v3.MetricServiceAsyncClient)
    for value, number in ((7.0, "a"), (8.0, "b")):
        await client.create_time_series(name=PROJECT, time_series=[bench.series(value, n=number)])
    request = {
        "name": PROJECT,
        "filter": f'metric.type="{METRIC}"',
        "interval": {"start_time": {"seconds": 1}, "end_time": bench.stamp()},
        "page_size": 1,
    }
    pager = await client.list_time_series(request=request)
    assert [one.points[0].value.double_value async for one in pager] == [7.0, 8.0]
    descriptor = f"{PROJECT}/metricDescriptors/{METRIC}"
    assert (await client.get_metric_descriptor(name=descriptor)).type == METRIC
    found = await client.list_metric_descriptors(name=PROJECT)
    assert [one.type async for one in found] == [METRIC]
    await client.delete_metric_descriptor(name=descriptor)
    with pytest.raises(NotFound):
        await client.list_time_series(request=request)


@pytest.mark.parametrize("life", [_policies, _channels, _snoozes, _dashboards, _time_series])
def test_an_asyncio_client_creates_lists_updates_and_deletes(bench: Bench, life: _Life) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            channel = grpc.aio.insecure_channel(bench.emulator.grpc_address)
            await stack.enter_async_context(channel)

            def connect(kind: Any) -> Any:
                transport = kind.get_transport_class("grpc_asyncio")
                return kind(transport=transport(channel=channel))

            await life(bench, connect)

    asyncio.run(run())

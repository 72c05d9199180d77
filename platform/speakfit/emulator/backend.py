"""What stands behind both wires: one store, one clock, and a service per API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.protobuf import struct_pb2

from speakfit.clock import Clock, ScaledClock
from speakfit.emulator.channels_service import ChannelsService
from speakfit.emulator.dashboards_service import DashboardsService
from speakfit.emulator.metrics_service import MetricsService
from speakfit.emulator.objectives_service import ObjectivesService
from speakfit.emulator.points import PointStore
from speakfit.emulator.policies_service import PoliciesService
from speakfit.emulator.snoozes_service import SnoozesService
from speakfit.emulator.store import Store


class Backend:
    """The services that the route table calls."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        mails: bool = False,
        descriptor_delay: timedelta = timedelta(0),
    ) -> None:
        self.store = store
        self.clock = clock
        self.points = PointStore(store)
        self.metrics = MetricsService(
            store=store, points=self.points, clock=clock, descriptor_delay=descriptor_delay
        )
        self.policies: PoliciesService
        self.channels = ChannelsService(
            store=store,
            clock=clock,
            used_by=lambda channel: self.policies.users_of(channel),
            detach=lambda channel: self.policies.detach(channel),
            mails=mails,
        )
        self.objectives = ObjectivesService(
            store=store,
            descriptor=self.metrics.descriptor,
            changed=lambda objective: self.policies.read_again(objective),
        )
        self.policies = PoliciesService(
            store=store,
            clock=clock,
            descriptor=self.metrics.descriptor,
            channel_exists=self.channels.exists,
            objective=self.objectives.objective,
        )
        self.snoozes = SnoozesService(store=store, clock=clock)
        self.dashboards = DashboardsService(store=store)

    def clock_answer(self) -> Any:
        """What clients need to compute policy time; instants as decimal strings."""
        clock = self.clock
        real = policy = 0
        if isinstance(clock, ScaledClock):
            real, policy = clock.anchor_real_ns, clock.anchor_policy_ns
        answer = struct_pb2.Struct()
        answer.update(
            {
                "scale": clock.scale,
                "anchorRealNs": str(real),
                "anchorPolicyNs": str(policy),
                "nowNs": str(clock.now_ns()),
            }
        )
        return answer

"""AlertPolicyService: policies as written, checked by the engine, with names the server makes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from google.cloud import monitoring_v3
from google.protobuf import empty_pb2, json_format, wrappers_pb2
from google.rpc import code_pb2

from speakfit.clock import Clock
from speakfit.emulator.listing import page, select
from speakfit.emulator.masks import apply_mask, masked_names
from speakfit.emulator.naming import check_name, new_number, project_of
from speakfit.emulator.resources import POLICY_RESOURCES
from speakfit.emulator.store import Store
from speakfit.emulator.system_metrics import guessed
from speakfit.engine.objectives import Objective
from speakfit.engine.points import Descriptor
from speakfit.engine.policies import AlertPolicySpec, parse_policy
from speakfit.errors import InvalidArgument, NotFound, WireError

_LOG = logging.getLogger("speakfit.emulator")
_COLLECTION = "alertPolicies"
_CHANNEL_NAME = re.compile(r"projects/[^/]+/notificationChannels/[^/]+")
_SECOND = 1_000_000_000
_Policy = monitoring_v3.AlertPolicy.pb()
_ListResponse = monitoring_v3.ListAlertPoliciesResponse.pb()


class PoliciesService:
    """Alert policies of all projects, each beside the engine's reading of it."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        descriptor: Callable[[str, str], Descriptor | None],
        channel_exists: Callable[[str], bool],
        objective: Callable[[str, str], Objective | None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._descriptor = descriptor
        self._channel_exists = channel_exists
        self._objective = objective
        # One lock for everything that is stored: two could wait for each other.
        self.lock = store.lock
        self._policies: dict[str, Any] = {}
        self._specs: dict[str, AlertPolicySpec | None] = {}
        for name, body in store.documents(_COLLECTION):
            policy = _Policy.FromString(body)
            self._policies[name] = policy
            self._specs[name] = self._parse_stored(policy)

    # For the evaluator, the notifier and the console

    def specs(self) -> list[tuple[str, AlertPolicySpec | None, int]]:
        """(name, spec, time of the last change in policy time) of every policy.

        The spec is None when the policy cannot be evaluated any more.
        """
        with self.lock:
            self._try_invalid_again()
            return [
                (name, spec, self._changed_ns(self._policies[name]))
                for name, spec in self._specs.items()
            ]

    def policy(self, name: str) -> Any:
        """The stored message, or None."""
        return self._policies.get(name)

    def users_of(self, channel: str) -> list[str]:
        """Names of the policies that notify a channel."""
        with self.lock:
            return [
                name
                for name, policy in self._policies.items()
                if channel in policy.notification_channels
            ]

    def read_again(self, objective: str) -> None:
        """Read the policies on a service level objective anew, because it has changed."""
        identity = objective.partition("/services/")[2]
        with self.lock:
            for name, policy in self._policies.items():
                filters = [one.condition_threshold.filter for one in policy.conditions]
                if any(identity in text for text in filters):
                    self._specs[name] = self._parse_stored(policy)

    def detach(self, channel: str) -> None:
        """Remove a channel from every policy."""
        with self.lock:
            for name in self.users_of(channel):
                policy = _Policy()
                policy.CopyFrom(self._policies[name])
                kept = [other for other in policy.notification_channels if other != channel]
                del policy.notification_channels[:]
                policy.notification_channels.extend(kept)
                self._save(policy, self._parse_stored(policy))

    @staticmethod
    def _changed_ns(policy: Any) -> int:
        stamp = policy.mutation_record.mutate_time
        return int(stamp.seconds) * _SECOND + int(stamp.nanos)

    # Checks

    def _parse(self, policy: Any) -> AlertPolicySpec:
        project = project_of("/".join(policy.name.split("/")[:2]))
        body = json_format.MessageToDict(policy)
        for output_only in ("creationRecord", "mutationRecord", "validity"):
            body.pop(output_only, None)

        guess = guessed(body)
        return parse_policy(
            body,
            descriptors=lambda name: self._descriptor(project, name) or guess.get(name),
            resource_types=POLICY_RESOURCES,
            objectives=lambda name: self._objective(project, name),
        )

    def _parse_stored(self, policy: Any) -> AlertPolicySpec | None:
        """The spec of a policy that was valid once; None when its metric is gone since.

        `validity` then says why, as Cloud Monitoring does of a policy that it cannot evaluate.
        """
        policy.ClearField("validity")
        try:
            return self._parse(policy)
        except WireError as error:
            # Not each time that it is tried again.
            if self._specs.get(policy.name, policy) is not None:
                _LOG.warning("policy %s is not evaluated: %s", policy.name, error.what)
            policy.validity.code = code_pb2.Code.Value(error.code)
            policy.validity.message = error.what
            return None

    def _try_invalid_again(self) -> None:
        """A policy becomes valid by itself once its metric is there again."""
        for name, spec in self._specs.items():
            if spec is None:
                policy = self._copy(self._policies[name])
                self._specs[name] = self._parse_stored(policy)
                self._policies[name] = policy

    def _check_channels(self, policy: Any) -> None:
        project = policy.name.split("/")[1]
        for name in policy.notification_channels:
            if not _CHANNEL_NAME.fullmatch(name):
                raise InvalidArgument(
                    "Name must begin with 'projects/{project_id}/notificationChannels/"
                    f"{{channel_id}}', got: {name}"
                )
            if not name.startswith(f"projects/{project}/") or not self._channel_exists(name):
                raise NotFound(f"Supplied notification channel doesn't exist: {name}")

    def _name_conditions(self, policy: Any, old: Any | None) -> None:
        """Keep names that were sent and exist; make the others."""
        known = {condition.name for condition in old.conditions} if old is not None else set()
        seen: set[str] = set()
        for index, condition in enumerate(policy.conditions):
            if old is not None and condition.name:
                if condition.name not in known:
                    raise InvalidArgument.of_field(
                        f"alert_policy.conditions[{index}].name",
                        condition.name,
                        f"The policy {policy.name} has no condition of this name.",
                    )
                if condition.name in seen:
                    raise InvalidArgument.of_field(
                        f"alert_policy.conditions[{index}].name",
                        condition.name,
                        "The name is used twice.",
                    )
                seen.add(condition.name)
            else:
                condition.name = f"{policy.name}/conditions/{new_number()}"

    def _record(self) -> Any:
        record = monitoring_v3.MutationRecord.pb()()
        now_ns = self._clock.now_ns()
        record.mutate_time.seconds, record.mutate_time.nanos = divmod(now_ns, _SECOND)
        record.mutated_by = "speakfit-emulator"
        return record

    def _save(self, policy: Any, spec: AlertPolicySpec | None) -> None:
        self._store.put(_COLLECTION, policy.name, policy.SerializeToString(deterministic=True))
        self._policies[policy.name] = policy
        self._specs[policy.name] = spec

    @staticmethod
    def _copy(policy: Any) -> Any:
        copy = _Policy()
        copy.CopyFrom(policy)
        return copy

    def _find(self, name: str) -> Any:
        check_name(name, _COLLECTION)
        policy = self._policies.get(name)
        if policy is None:
            raise NotFound(f"The alert policy {name} does not exist.")
        return policy

    # Calls

    def create(self, request: Any) -> Any:
        """Check and store a policy under a new name; a name that was sent is not used."""
        project = project_of(request.name)
        policy = self._copy(request.alert_policy)
        policy.name = f"projects/{project}/{_COLLECTION}/{new_number()}"
        policy.ClearField("validity")
        if not policy.HasField("enabled"):
            policy.enabled.CopyFrom(wrappers_pb2.BoolValue(value=True))
        self._name_conditions(policy, None)
        policy.creation_record.CopyFrom(self._record())
        policy.mutation_record.CopyFrom(policy.creation_record)
        spec = self._parse(policy)
        self._check_channels(policy)
        with self.lock:
            self._save(policy, spec)
        return self._copy(policy)

    def get(self, request: Any) -> Any:
        """One policy."""
        with self.lock:
            self._try_invalid_again()
            return self._copy(self._find(request.name))

    def list(self, request: Any) -> Any:
        """Policies of a project in the order of their creation, filtered, ordered and paged."""
        project = project_of(request.name)
        prefix = f"projects/{project}/"
        with self.lock:
            self._try_invalid_again()
            mine = [policy for name, policy in self._policies.items() if name.startswith(prefix)]
        kept = select(
            [
                json_format.MessageToDict(policy, preserving_proto_field_name=True)
                for policy in mine
            ],
            filter_text=request.filter,
            order_by=request.order_by,
        )
        window, token = page(
            len(kept),
            size=request.page_size,
            token=request.page_token,
            about=(self._store.identity, _COLLECTION, project, request.filter, request.order_by),
        )
        return _ListResponse(
            alert_policies=[mine[index] for index in kept[window]],
            next_page_token=token,
            total_size=len(kept),
        )

    def update(self, request: Any) -> Any:
        """Replace the fields of the mask, or everything without one.

        Conditions sent with their name keep it, the others get new names, omitted ones are gone.
        """
        asked = request.alert_policy
        with self.lock:
            old = self._find(asked.name)
            paths = list(request.update_mask.paths)
            if paths:
                new = self._copy(old)
                apply_mask(new, asked, paths)
            else:
                new = self._copy(asked)
            new.name = old.name
            new.ClearField("validity")
            new.creation_record.CopyFrom(old.creation_record)
            if not new.HasField("enabled"):
                new.enabled.CopyFrom(wrappers_pb2.BoolValue(value=True))
            if not paths or "conditions" in masked_names(paths):
                self._name_conditions(new, old)
            new.mutation_record.CopyFrom(self._record())
            spec = self._parse(new)
            self._check_channels(new)
            self._save(new, spec)
        return self._copy(new)

    def delete(self, request: Any) -> Any:
        """Delete a policy; the evaluator closes its incidents."""
        with self.lock:
            policy = self._find(request.name)
            self._store.remove(_COLLECTION, policy.name)
            del self._policies[policy.name]
            del self._specs[policy.name]
        return empty_pb2.Empty()

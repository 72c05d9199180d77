"""NotificationChannelService: channels, their types, and secrets that never come back."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from google.api import label_pb2
from google.cloud import monitoring_v3
from google.protobuf import empty_pb2, json_format, struct_pb2, wrappers_pb2

from speakfit.clock import Clock, from_ns
from speakfit.emulator.listing import page, select
from speakfit.emulator.masks import apply_mask
from speakfit.emulator.naming import check_name, new_incident_id, new_number, project_of
from speakfit.emulator.notification import trial_of
from speakfit.emulator.store import Store
from speakfit.errors import FailedPrecondition, InvalidArgument, NotFound

_COLLECTION = "notificationChannels"
_CODES = "verificationCodes"
_CODE_NS = (timedelta(hours=1) // timedelta(microseconds=1)) * 1_000
_MAX_DISPLAY_NAME = 512
_MAX_DESCRIPTION = 1_024
_MAX_USER_LABELS = 64

# proto-plus names the field `type_` in Python; on the wire and in JSON it is `type`.
_Channel = monitoring_v3.NotificationChannel.pb()
_Descriptor = monitoring_v3.NotificationChannelDescriptor.pb()
_ListResponse = monitoring_v3.ListNotificationChannelsResponse.pb()
_CodeResponse = monitoring_v3.GetNotificationChannelVerificationCodeResponse.pb()
_ListDescriptorsResponse = monitoring_v3.ListNotificationChannelDescriptorsResponse.pb()


@dataclass(frozen=True, kw_only=True)
class ChannelType:
    """One channel type: required labels, optional ones, which are secret, and if we deliver it."""

    type: str
    display_name: str
    description: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()
    verified: bool = False
    """Whether the owner has to prove that the channel is theirs."""
    delivered: bool = False


CHANNEL_TYPES: dict[str, ChannelType] = {
    channel.type: channel
    for channel in (
        ChannelType(
            type="pagerduty",
            display_name="PagerDuty",
            description="A PagerDuty service, reached through the Events API v2.",
            required=("service_key",),
            secret=frozenset({"service_key"}),
            delivered=True,
        ),
        ChannelType(
            type="email",
            display_name="Email",
            description="An email address.",
            required=("email_address",),
        ),
        ChannelType(
            type="webhook_basicauth",
            display_name="Webhook with Basic Authentication",
            description="A webhook with user name and password.",
            required=("url",),
            optional=("username", "password"),
            secret=frozenset({"password"}),
            delivered=True,
        ),
        ChannelType(
            type="webhook_tokenauth",
            display_name="Webhook with Token Authentication",
            description="A webhook whose address carries a token.",
            required=("url",),
            delivered=True,
        ),
        ChannelType(
            type="slack",
            display_name="Slack",
            description="A Slack channel.",
            required=("channel_name",),
            optional=("auth_token",),
            secret=frozenset({"auth_token"}),
        ),
        ChannelType(
            type="pubsub",
            display_name="Cloud Pub/Sub",
            description="A Cloud Pub/Sub topic.",
            required=("topic",),
        ),
        ChannelType(
            type="sms",
            display_name="SMS",
            description="A phone number.",
            required=("number",),
            verified=True,
        ),
        ChannelType(
            type="google_chat",
            display_name="Google Chat",
            description="A Google Chat space.",
            required=("space",),
        ),
    )
}
"""Types met in public use; those that are not delivered are stored and shown as such."""


def obfuscated(secret: str) -> str:
    """A secret as reads show it: stars, and the last four characters of a long one."""
    kept = secret[-4:] if len(secret) >= 16 else ""
    return "*" * 12 + kept


_PHONE_NUMBER = re.compile(r"\+?[0-9][0-9 ()-]*")
_MAIL_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")


def _web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _plain(channel: Any) -> dict[str, Any]:
    return dict(json_format.MessageToDict(channel, preserving_proto_field_name=True))


class ChannelsService:
    """Notification channels of all projects; secrets leave only towards the notifier."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        used_by: Callable[[str], list[str]],
        detach: Callable[[str], None],
        mails: bool = False,
    ) -> None:
        """`used_by` names the policies that notify a channel; `detach` removes it from them.

        `mails` says whether there is a mail server, without which e-mail is not delivered.
        """
        self.notify: Callable[[], object] = lambda: None
        """Called after a notification has been queued."""
        self._mails = mails
        self._store = store
        self._clock = clock
        self._used_by = used_by
        self._detach = detach
        # One lock for everything that is stored: two could wait for each other.
        self._lock = store.lock
        self._channels = {
            name: _Channel.FromString(body) for name, body in store.documents(_COLLECTION)
        }

    def exists(self, name: str) -> bool:
        """Whether a channel of this name exists."""
        return name in self._channels

    def _delivers(self, kind: str) -> bool:
        return CHANNEL_TYPES[kind].delivered or (kind == "email" and self._mails)

    def route(self, name: str) -> dict[str, str] | None:
        """What the notifier needs to reach an enabled channel; None when it is not delivered to.

        It holds secrets: it may go into the queue and nowhere else.
        """
        channel = self._channels.get(name)
        if channel is None or not channel.enabled.value or not self._delivers(channel.type_):
            return None
        labels = dict(channel.labels)
        if channel.type_ == "pagerduty":
            return {"kind": "pagerduty", "routing_key": labels["service_key"]}
        if channel.type_ == "email":
            return {"kind": "email", "to": labels["email_address"]}
        return {"kind": "webhook", **labels}

    def summary(self) -> list[tuple[str, str, str, bool]]:
        """(name, display name, type, delivered) of every channel, for the console."""
        return [
            (name, channel.display_name, channel.type_, self._delivers(channel.type_))
            for name, channel in list(self._channels.items())
        ]

    @staticmethod
    def _shown(channel: Any) -> Any:
        shown = _Channel()
        shown.CopyFrom(channel)
        for label in CHANNEL_TYPES[channel.type_].secret:
            if label in shown.labels:
                shown.labels[label] = obfuscated(shown.labels[label])
        return shown

    @staticmethod
    def _check(channel: Any) -> None:
        kind = CHANNEL_TYPES.get(channel.type_)
        if kind is None:
            raise InvalidArgument.of_field(
                "notification_channel.type",
                channel.type_,
                "The channel type is unknown; known are " + ", ".join(sorted(CHANNEL_TYPES)) + ".",
            )
        for label in kind.required:
            if not channel.labels.get(label):
                raise InvalidArgument(
                    f"Request was missing field notification_channel.labels[{label}]."
                )
        if kind.type.startswith("webhook") and not _web_address(channel.labels["url"]):
            raise InvalidArgument(
                "Field notification_channel.labels had an invalid value: the label "
                '"url" must be an http or https address.'
            )
        if kind.type == "email" and not _MAIL_ADDRESS.fullmatch(channel.labels["email_address"]):
            raise InvalidArgument(
                "Field notification_channel.labels had an invalid value: the label "
                '"email_address" must be an e-mail address.'
            )
        if kind.type == "sms" and not _PHONE_NUMBER.fullmatch(channel.labels["number"]):
            raise InvalidArgument.of_field(
                "labels[number]", channel.labels["number"], "Phone number is not valid"
            )
        known = (*kind.required, *kind.optional)
        for label in sorted(channel.labels):
            if label not in known:
                keys = ", ".join(f'"{key}"' for key in known)
                raise InvalidArgument(
                    f"Field \"notification_channel.labels['{label}']\" is not allowed; labels "
                    "must conform to the channel type's descriptor; permissible label keys for "
                    f'"{kind.type}" are: {{{keys}}}.'
                )
        for field, limit in (
            ("display_name", _MAX_DISPLAY_NAME),
            ("description", _MAX_DESCRIPTION),
        ):
            if len(getattr(channel, field)) > limit:
                raise InvalidArgument.of_field(
                    f"notification_channel.{field}",
                    getattr(channel, field)[:32] + "…",
                    f"At most {limit} characters are allowed.",
                )
        if len(channel.user_labels) > _MAX_USER_LABELS:
            raise InvalidArgument.of_field(
                "notification_channel.user_labels",
                len(channel.user_labels),
                f"At most {_MAX_USER_LABELS} labels are allowed.",
            )

    def _record(self) -> Any:
        record = monitoring_v3.MutationRecord.pb()()
        record.mutate_time.FromDatetime(from_ns(self._clock.now_ns()))
        record.mutated_by = "speakfit-emulator"
        return record

    def _save(self, channel: Any) -> None:
        self._store.put(_COLLECTION, channel.name, channel.SerializeToString(deterministic=True))
        self._channels[channel.name] = channel

    def _find(self, name: str) -> Any:
        check_name(name, _COLLECTION)
        channel = self._channels.get(name)
        if channel is None:
            raise NotFound(f"The notification channel {name} does not exist.")
        return channel

    def create(self, request: Any) -> Any:
        """Create a channel under a new name."""
        project = project_of(request.name)
        channel = _Channel()
        channel.CopyFrom(request.notification_channel)
        if channel.name:
            raise InvalidArgument.of_field(
                "notification_channel.name.channel_id_part",
                channel.name.rpartition("/")[2],
                "Field must be empty.",
            )
        channel.ClearField("verification_status")
        channel.ClearField("mutation_records")
        self._check(channel)
        if CHANNEL_TYPES[channel.type_].verified:
            channel.verification_status = _Channel.VerificationStatus.UNVERIFIED
        if not channel.HasField("enabled"):
            channel.enabled.CopyFrom(wrappers_pb2.BoolValue(value=True))
        channel.name = f"projects/{project}/{_COLLECTION}/{new_number()}"
        channel.creation_record.CopyFrom(self._record())
        with self._lock:
            self._save(channel)
        return self._shown(channel)

    def get(self, request: Any) -> Any:
        """One channel, its secrets obfuscated."""
        return self._shown(self._find(request.name))

    def list(self, request: Any) -> Any:
        """Channels of a project in the order of their creation, filtered and paged."""
        project = project_of(request.name)
        prefix = f"projects/{project}/"
        with self._lock:
            mine = [self._shown(c) for n, c in self._channels.items() if n.startswith(prefix)]
        kept = select(
            [_plain(channel) for channel in mine],
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
            notification_channels=[mine[index] for index in kept[window]],
            next_page_token=token,
            total_size=len(kept),
        )

    def update(self, request: Any) -> Any:
        """Replace the fields of the mask, or everything without one; the type is fixed."""
        asked = request.notification_channel
        with self._lock:
            old = self._find(asked.name)
            new = _Channel()
            if request.update_mask.paths:
                new.CopyFrom(old)
                apply_mask(new, asked, request.update_mask.paths)
            else:
                new.CopyFrom(asked)
            new.type_ = new.type_ or old.type_
            if new.type_ != old.type_:
                raise InvalidArgument.of_field(
                    "notification_channel.type", new.type_, "The type of a channel cannot change."
                )
            for label in CHANNEL_TYPES[old.type_].secret:
                # gcloud reads, edits and writes back: stars mean "as it was".
                if label in old.labels and new.labels.get(label) == obfuscated(old.labels[label]):
                    new.labels[label] = old.labels[label]
            self._check(new)
            if not new.HasField("enabled"):
                new.enabled.CopyFrom(wrappers_pb2.BoolValue(value=True))
            new.name = old.name
            new.verification_status = old.verification_status
            new.creation_record.CopyFrom(old.creation_record)
            new.ClearField("mutation_records")
            new.mutation_records.extend([*old.mutation_records, self._record()][-10:])
            self._save(new)
        return self._shown(new)

    def delete(self, request: Any) -> Any:
        """Delete a channel; one that policies notify only with `force`."""
        with self._lock, self._store.transaction():
            channel = self._find(request.name)
            users = self._used_by(channel.name)
            if users and not request.force:
                raise FailedPrecondition(
                    f"The notification channel {channel.name} is used by the alert policies "
                    f"{', '.join(users)}; delete it with force to remove it from them."
                )
            self._detach(channel.name)
            self._store.remove(_COLLECTION, channel.name)
            del self._channels[channel.name]
        return empty_pb2.Empty()

    def send_test(self, request: Any) -> Any:
        """Queue a test notification, as the console's button does; the answer names its incident.

        The page that it makes stays open: the console resolves none either.
        """
        channel = self._find(request.name)
        route = self.route(channel.name)
        if route is None:
            why = (
                "is disabled"
                if not channel.enabled.value
                else f"is of the type {channel.type_}, which is not delivered here"
            )
            raise FailedPrecondition(f"The notification channel {channel.name} {why}.")
        identity = new_incident_id()
        event = trial_of(
            route["kind"],
            trial_id=identity,
            project=check_name(channel.name, _COLLECTION),
            channel=channel.display_name,
            routing_key=route.get("routing_key", ""),
            started_s=self._clock.now_ns() // 10**9,
        )
        self._store.add_notification(
            incident=identity, channel=channel.name, body=json.dumps({**route, "event": event})
        )
        self.notify()
        answer = struct_pb2.Struct()
        answer.update({"incidentId": identity})
        return answer

    # Verification

    def _find_verifiable(self, name: str) -> Any:
        channel = self._find(name)
        if not CHANNEL_TYPES[channel.type_].verified:
            raise InvalidArgument.of_field(
                "name", name, f'channels of type "{channel.type_}" need no verification.'
            )
        return channel

    @staticmethod
    def _identity(channel: Any) -> str:
        """What equal channels of all projects share."""
        return json.dumps([channel.type_, sorted(channel.labels.items())])

    def _new_code(self, channel: Any, expires_ns: int) -> str:
        code = f"G-{secrets.randbelow(10**6):06d}"
        body = {"identity": self._identity(channel), "code": code, "expiresNs": str(expires_ns)}
        self._store.put(_CODES, f"{channel.name} {code}", json.dumps(body).encode())
        return code

    def verification_codes(self) -> Sequence[dict[str, str]]:
        """Codes that are still good, oldest first: nothing here can be sent to a phone."""
        now_ns = self._clock.now_ns()
        found = [
            {"channel": name.partition(" ")[0], **json.loads(body)}
            for name, body in self._store.documents(_CODES)
        ]
        return [one for one in found if int(one["expiresNs"]) > now_ns]

    def send_verification_code(self, request: Any) -> Any:
        """Make a code that proves the channel; `/emulator/v1/verificationCodes` shows it."""
        with self._lock:
            channel = self._find_verifiable(request.name)
            self._new_code(channel, self._clock.now_ns() + _CODE_NS)
        return empty_pb2.Empty()

    def get_verification_code(self, request: Any) -> Any:
        """A code of a verified channel that verifies an equal one, perhaps in another project."""
        with self._lock:
            channel = self._find_verifiable(request.name)
            if channel.verification_status != _Channel.VerificationStatus.VERIFIED:
                raise FailedPrecondition(
                    f"The notification channel {channel.name} is not verified; only a verified "
                    "channel has a code to pass on."
                )
            now_ns = self._clock.now_ns()
            expires_ns = now_ns + _CODE_NS
            if request.HasField("expire_time"):
                asked = request.expire_time
                expires_ns = min(expires_ns, asked.seconds * 10**9 + asked.nanos)
                if expires_ns <= now_ns:
                    raise InvalidArgument(
                        "Field expire_time had an invalid value: must be in the future."
                    )
            answer = _CodeResponse(code=self._new_code(channel, expires_ns))
            answer.expire_time.seconds, answer.expire_time.nanos = divmod(expires_ns, 10**9)
        return answer

    def verify(self, request: Any) -> Any:
        """Prove a channel with a code that was made for an equal one."""
        with self._lock:
            channel = self._find_verifiable(request.name)
            identity = self._identity(channel)
            if not any(
                secrets.compare_digest(one["code"].encode(), request.code.encode())
                and one["identity"] == identity
                for one in self.verification_codes()
            ):
                raise InvalidArgument.of_field(
                    "code", request.code[:16], "the code is wrong or has expired."
                )
            new = _Channel()
            new.CopyFrom(channel)
            new.verification_status = _Channel.VerificationStatus.VERIFIED
            self._save(new)
        return self._shown(new)

    # Types

    @staticmethod
    def _described(project: str, kind: ChannelType) -> Any:
        return _Descriptor(
            name=f"projects/{project}/notificationChannelDescriptors/{kind.type}",
            type_=kind.type,
            display_name=kind.display_name,
            description=kind.description,
            labels=[label_pb2.LabelDescriptor(key=key) for key in (*kind.required, *kind.optional)],
        )

    def list_descriptors(self, request: Any) -> Any:
        """All channel types."""
        project = project_of(request.name)
        kinds = [CHANNEL_TYPES[name] for name in sorted(CHANNEL_TYPES)]
        window, token = page(
            len(kinds),
            size=request.page_size,
            token=request.page_token,
            about=(self._store.identity, "channelDescriptors", project),
        )
        return _ListDescriptorsResponse(
            channel_descriptors=[self._described(project, kind) for kind in kinds[window]],
            next_page_token=token,
        )

    def get_descriptor(self, request: Any) -> Any:
        """One channel type."""
        project = check_name(request.name, "notificationChannelDescriptors")
        kind = CHANNEL_TYPES.get(request.name.rpartition("/")[2])
        if kind is None:
            raise NotFound(f"The notification channel descriptor {request.name} does not exist.")
        return self._described(project, kind)

"""Every error the platform raises on purpose, as one tree.

SpeakFitError
├── SettingsError          a setting is missing or cannot be read
├── TargetError            a server we need is not there or does not answer
├── StackError             a part of the local stack did not start or died
├── AudioError             a recording cannot be used
├── NotRecordedError       the recorded engine does not know a chunk
├── StoreError             the audio store is away or has not what it was given
├── CatalogError           a policy, route or runbook is declared wrongly
│   └── DocumentError      a file is not the JSON or YAML it should be; carries where
├── HistoryError           a recorded history cannot be written, read or used
├── ScenarioError          a scenario cannot be read, or cannot be checked
├── LoadError              a load run is declared wrongly, or cannot be done
├── FaultError             a fault cannot be made, or not be healed
├── DrillError             a drill did not go as it must
├── ApplyError             writes to Cloud Monitoring or PagerDuty failed, maybe half-way
├── MigrationError         rows could not be moved to another database, maybe half-way
├── RefusedError           a guard stopped a command before it changed anything
├── InfraError             the estate, its offline proof or its price table is wrong
├── PagerDutyError         PagerDuty refused an event or a call, or did not answer
├── DeliveryError          a webhook or a mail server refused a notification or did not answer
└── WireError              an answer to a Cloud Monitoring caller; carries its gRPC code
    ├── InvalidArgument    INVALID_ARGUMENT, HTTP 400
    ├── NotFound           NOT_FOUND, HTTP 404
    ├── AlreadyExists      ALREADY_EXISTS, HTTP 409
    ├── Aborted            ABORTED, HTTP 409
    ├── FailedPrecondition FAILED_PRECONDITION, HTTP 400
    ├── ResourceExhausted  RESOURCE_EXHAUSTED, HTTP 429
    ├── Unimplemented      UNIMPLEMENTED, HTTP 501
    └── Unavailable        UNAVAILABLE, HTTP 503
"""

from __future__ import annotations

from typing import ClassVar


class SpeakFitError(Exception):
    """Says what went wrong, where, and what to do about it.

    `what` is one sentence; `where` names the setting, file, field or address; `todo` is an
    instruction the reader can follow. Secrets never go into any of them.
    """

    exit_code: int = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f"\n  where: {self.where}"
        if self.todo:
            text += f"\n  to do: {self.todo}"
        return text


class SettingsError(SpeakFitError):
    """A setting is missing or cannot be read."""


class TargetError(SpeakFitError):
    """A server we need is not there or does not answer."""


class StackError(SpeakFitError):
    """A part of the local stack did not start or died."""


class AudioError(SpeakFitError):
    """A recording cannot be used; `code` is a stable word for machines."""

    def __init__(self, what: str, *, code: str, where: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, todo=todo)
        self.code = code


class NotRecordedError(SpeakFitError, LookupError):
    """The recorded engine does not know a chunk; asking again cannot help."""


class StoreError(SpeakFitError):
    """The audio store is away, or has not what it was given."""


class CatalogError(SpeakFitError):
    """A policy, route or runbook is declared wrongly."""


class DocumentError(CatalogError):
    """A file is not the JSON or YAML it should be; `line` and `column` are from 1."""

    def __init__(self, what: str, *, file: str, line: int = 1, column: int = 1, todo: str) -> None:
        super().__init__(what, where=f"{file}:{line}:{column}", todo=todo)
        self.line = line
        self.column = column


class HistoryError(SpeakFitError):
    """A recorded history cannot be written, read or used."""


class ScenarioError(SpeakFitError):
    """A scenario cannot be read, or asks for what can never be checked."""


class LoadError(SpeakFitError):
    """A load run is declared wrongly, or cannot be done."""


class FaultError(SpeakFitError):
    """A fault cannot be made, or not be healed."""


class DrillError(SpeakFitError):
    """A drill did not go as it must: what was expected, what was seen, and where to look."""

    exit_code = 3


class ApplyError(SpeakFitError):
    """Writes failed, maybe half-way; exit code 4 when some were done or may have been.

    `uncertain` says that the write under way may have happened although no answer came.
    """

    def __init__(
        self,
        what: str,
        *,
        done: int = 0,
        left: int = 0,
        uncertain: bool = False,
        where: str = "",
        todo: str = "",
    ) -> None:
        super().__init__(what, where=where, todo=todo)
        self.left = left
        self.uncertain = uncertain
        self.after(done)

    def after(self, done: int) -> None:
        """Say how many writes came before it."""
        self.done = done
        self.exit_code = 4 if done or self.uncertain else 1


class MigrationError(SpeakFitError):
    """Rows could not be moved to another database; what was moved stays, and it can go on."""

    exit_code = 4


class RefusedError(SpeakFitError):
    """A guard stopped a command before it changed anything."""

    exit_code = 5


class InfraError(SpeakFitError):
    """The estate, its offline proof or its price table is wrong or cannot be used."""


class PagerDutyError(SpeakFitError):
    """PagerDuty refused an event or a call, or did not answer.

    `retry` says whether trying again can help; `status` is HTTP's, None without an answer.
    """

    def __init__(
        self,
        what: str,
        *,
        retry: bool,
        status: int | None = None,
        where: str = "",
        todo: str = "",
    ) -> None:
        super().__init__(what, where=where, todo=todo)
        self.retry = retry
        self.status = status


class DeliveryError(SpeakFitError):
    """A notification could not be delivered; `retry` says whether trying again can help."""

    def __init__(self, what: str, *, retry: bool, where: str = "", todo: str = "") -> None:
        super().__init__(what, where=where, todo=todo)
        self.retry = retry


class WireError(SpeakFitError):
    """An answer to a Cloud Monitoring caller; the codes are google.rpc.Code's."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __str__(self) -> str:
        return self.what


class InvalidArgument(WireError):
    """The request is wrong whatever the state of the server is."""

    code = "INVALID_ARGUMENT"
    http_status = 400

    @classmethod
    def of_field(cls, field: str, value: object, rule: str, *, where: str = "") -> InvalidArgument:
        """Google's usual form: Field X had an invalid value of "V": RULE.

        Where Google's name of the field does not lead to it, `where` does; callers never see it.
        """
        return cls(f'Field {field} had an invalid value of "{value}": {rule}', where=where)


class NotFound(WireError):
    """What the request names does not exist."""

    code = "NOT_FOUND"
    http_status = 404


class AlreadyExists(WireError):
    """What the request would make exists already."""

    code = "ALREADY_EXISTS"
    http_status = 409


class Aborted(WireError):
    """Another edit came between; read again and retry."""

    code = "ABORTED"
    http_status = 409


class FailedPrecondition(WireError):
    """The state of the server does not allow it."""

    code = "FAILED_PRECONDITION"
    http_status = 400


class ResourceExhausted(WireError):
    """A limit or quota is used up."""

    code = "RESOURCE_EXHAUSTED"
    http_status = 429


class Unimplemented(WireError):
    """Real Cloud Monitoring has it; this emulator does not yet."""

    code = "UNIMPLEMENTED"
    http_status = 501


class Unavailable(WireError):
    """The server cannot answer now."""

    code = "UNAVAILABLE"
    http_status = 503

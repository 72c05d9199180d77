"""Field masks as real clients send them: snake_case (gcloud) and camelCase (Terraform)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from speakfit.errors import InvalidArgument

_PATH = re.compile(r'[^."`]+|"[^"]*"|`[^`]*`')


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def snake_path(path: str) -> str:
    """A mask path in snake_case: `interval.endTime` as `interval.end_time`."""
    return _snake(path.strip())


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _bad(path: str) -> InvalidArgument:
    return InvalidArgument.of_field(
        "update_mask", path, "the path names no field that can be updated."
    )


def _copy_field(target: Any, source: Any, field: Any) -> None:
    target.ClearField(field.name)
    if field.is_repeated:
        if _is_map(field):
            values = getattr(source, field.name)
            if field.message_type.fields_by_name["value"].message_type is None:
                getattr(target, field.name).update(values)
            else:
                for key in values:
                    getattr(target, field.name)[key].CopyFrom(values[key])
        else:
            getattr(target, field.name).extend(getattr(source, field.name))
    elif field.message_type is not None:
        if source.HasField(field.name):
            getattr(target, field.name).CopyFrom(getattr(source, field.name))
    elif not field.has_presence or source.HasField(field.name):
        setattr(target, field.name, getattr(source, field.name))


def _apply_path(target: Any, source: Any, path: str) -> None:
    parts = [part.strip('"`') for part in _PATH.findall(path)]
    if not parts:
        raise _bad(path)
    # Google documents `user_label.KEY`; the field itself is `user_labels`.
    if len(parts) > 1 and _snake(parts[0]) in ("user_label", "label"):
        parts[0] = _snake(parts[0]) + "s"
    while True:
        fields = target.DESCRIPTOR.fields_by_name
        # proto-plus adds an underscore to names that Python reserves.
        field = fields.get(_snake(parts[0])) or fields.get(_snake(parts[0]) + "_")
        if field is None:
            raise _bad(path)
        if len(parts) == 1:
            _copy_field(target, source, field)
            return
        if _is_map(field):
            key = ".".join(parts[1:])
            values = getattr(source, field.name)
            if key in values:
                getattr(target, field.name)[key] = values[key]
            else:
                getattr(target, field.name).pop(key, None)
            return
        if field.is_repeated or field.message_type is None:
            raise _bad(path)
        target, source = getattr(target, field.name), getattr(source, field.name)
        parts = parts[1:]


def apply_mask(target: Any, source: Any, paths: Iterable[str]) -> None:
    """Set in `target` what each path names to what `source` has there, absent included.

    A path that names no field is an InvalidArgument; `target` is then half changed, so give a
    copy.
    """
    for path in paths:
        _apply_path(target, source, path)


def masked_names(paths: Iterable[str]) -> set[str]:
    """The top-level fields, in snake_case, that some path starts with."""
    return {_snake(path.split(".", 1)[0]) for path in paths}

"""Files of policies in the API's own form: JSON or YAML, one policy, a list, or many documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alerts.encode import Json, mapping, policy_message
from speakfit.errors import CatalogError


def policies_of_file(file: Path) -> tuple[Json, ...]:
    """Every policy of a file, in the API's own spelling (camelCase, enums by name).

    Raises CatalogError, with line and column where the parser tells them, for a file that cannot
    be read and for what is no alert policy.
    """
    return tuple(_canonical(body, file) for body in _bodies(_documents(file)))


def _documents(file: Path) -> Iterable[Any]:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            # YAML is nearly JSON: it refuses tabs.
            return [json.loads(text)]
        return list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(
            f"It cannot be read: {error}.", where=str(file), todo="Name a text file."
        ) from error
    except json.JSONDecodeError as error:
        where = f"{file}:{error.lineno}:{error.colno}"
        raise CatalogError(
            f"It is not JSON: {error.msg}.", where=where, todo="Correct it there."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        what = getattr(error, "problem", None) or "it cannot be parsed"
        raise CatalogError(
            f"It is not YAML: {what}.", where=where, todo="Correct it there."
        ) from error


def _bodies(documents: Iterable[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, Mapping) and "alertPolicies" in document:
            # What a list call answers.
            yield from document["alertPolicies"] or ()
        elif isinstance(document, list):
            yield from document
        elif document is not None:
            yield document


def _canonical(body: Any, file: Path) -> Json:
    from google.protobuf import json_format

    if not isinstance(body, Mapping):
        raise CatalogError(
            "It holds something else than alert policies.",
            where=str(file),
            todo="Give AlertPolicy objects, a list of them, or what a list call answered.",
        )
    try:
        return mapping(policy_message(body))
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise CatalogError(
            f"It is no alert policy: {error}".rstrip(".") + ".",
            where=f"{file}, {body.get('displayName', 'a policy without displayName')}",
            todo="Compare it with AlertPolicy in the API's reference.",
        ) from error

"""Files of policies in the API's own form: JSON or YAML, one policy, a list, or many documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from alerts.document import Document, Path, read_documents
from alerts.encode import Json, mapping, policy_message
from speakfit.errors import CatalogError

SUFFIXES = (".json", ".yaml", ".yml")

_LISTED = "alertPolicies"


def files_of(paths: Sequence[FilePath]) -> list[FilePath]:
    """Every file named, and every JSON and YAML file below a folder named, hidden ones left out.

    A CatalogError when a path is not there or a folder holds none: nothing would be read.
    """
    found: list[FilePath] = []
    for path in paths:
        if not path.exists():
            raise CatalogError(
                "There is no such file or folder.", where=str(path), todo="Correct --files."
            )
        if not path.is_dir():
            found.append(path)
            continue
        below = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not below:
            raise CatalogError(
                "There is no JSON and no YAML in this folder.",
                where=str(path),
                todo="Name the folder that holds the policies.",
            )
        found += below
    return list(dict.fromkeys(found))


def read_file(file: FilePath, *, shown: str = "") -> tuple[Document, ...]:
    """The documents of a file, called `shown` in errors.

    A CatalogError when it cannot be read; a DocumentError, with line and column, when it is no
    JSON and no YAML.
    """
    name = shown or str(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CatalogError(
            f"It cannot be read: {reason}.", where=name, todo="Name a text file."
        ) from error
    return read_documents(text, file=name)


def bodies_of(document: Document) -> list[tuple[Path, Any]]:
    """What a document holds one by one, and where in it each begins."""
    value = document.value
    above: Path = ()
    if isinstance(value, dict) and _LISTED in value:
        # What a list call answers.
        above, value = (_LISTED,), value[_LISTED] or []
    if isinstance(value, list):
        return [((*above, index), one) for index, one in enumerate(value)]
    return [(above, value)]


def policies_of_file(file: FilePath) -> tuple[Json, ...]:
    """Every policy of a file, in the API's own spelling (camelCase, enums by name).

    Raises CatalogError, with line and column where the parser tells them, for a file that cannot
    be read and for what is no alert policy.
    """
    return tuple(
        _canonical(body, file) for document in read_file(file) for _, body in bodies_of(document)
    )


def _canonical(body: Any, file: FilePath) -> Json:
    from google.protobuf import json_format

    if not isinstance(body, dict):
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

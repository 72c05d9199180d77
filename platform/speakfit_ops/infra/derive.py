"""Google's provider schema, derived from a wheel that was generated from it.

The real provider binary tells its schema (`terraform providers schema -json`), but it can only be
downloaded from HashiCorp's registry. The wheel `cdktn-provider-google` on PyPI holds JavaScript
generated from that schema: a comment names each attribute and whether it is computed, optional or
required; a table names its type and nesting; the documentation lists the values it takes. This
reads them back into the shape of Terraform's JSON, for the types that are asked for.

Only wheels from 20.0.0 on (provider 7.43) carry the comments.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speakfit.errors import InfraError

_CLASS = re.compile(r"^class (\w+) extends (?:cdktn|cdktf)\.(\w+) \{\n(.*?)^\}\n", re.S | re.M)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}\n", re.S | re.M)
_ATTRIBUTE = re.compile(
    r"^ {4}// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n",
    re.M,
)
_ENTRY = re.compile(
    r"^ {8,16}(\w+): \{\n\s+value: (.*?),\n\s+isBlock: (true|false),\n\s+"
    r'type: "(\w+)",\n\s+storageClassType: "(\w+)"',
    re.M,
)
_NESTED = re.compile(r'= new (\w[\w.]*)\(this, "(\w+)"(?:, (true|false))?')
_GETTER = re.compile(r"this\.get(\w+)Attribute\(")
_INTERFACE = re.compile(r"^export interface (\w+)[^{]*\{\n(.*?)^\}", re.S | re.M)
_FIELD = re.compile(r"/\*\*((?:(?!\*/).)*?)\*/\s*\n\s*readonly (\w+)(\??):", re.S)
_VALUES = re.compile(r"Possible values: \[([^\]]*)\]")

_SIMPLE = {"string": "string", "boolean": "bool", "number": "number"}
_MAPS = {"StringMap": "string", "NumberMap": "number", "BooleanMap": "bool"}

Type = Any
"""A Terraform type as its JSON writes it: `"string"`, `["list", "string"]`, ..."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One row of a class's synthesis table."""

    value: str
    block: bool
    kind: str
    storage: str


def _table(body: str) -> dict[str, _Entry]:
    return {
        found[1]: _Entry(value=found[2], block=found[3] == "true", kind=found[4], storage=found[5])
        for found in _ENTRY.finditer(body)
    }


def derive(wheel: Path, resources: Iterable[str], data_sources: Iterable[str]) -> dict[str, Any]:
    """The provider's schema for these types; an InfraError names what the wheel does not hold."""
    wanted = {"TerraformResource": set(resources), "TerraformDataSource": set(data_sources)}
    keys = {"TerraformResource": "resource_schemas", "TerraformDataSource": "data_source_schemas"}
    schema: dict[str, Any] = {
        "provider_version": None,
        "provider": None,
        "resource_schemas": {},
        "data_source_schemas": {},
    }
    for script, types in _modules(wheel):
        source = _Module(script, types)
        for name, (kind, body) in source.classes.items():
            if kind == "TerraformProvider":
                schema["provider"] = {"version": 0, "block": source.provider(body)}
            if kind not in wanted:
                continue
            found = re.search(r'static tfResourceType = "(\w+)"', body)
            if found is None or found[1] not in wanted[kind]:
                continue
            version = re.search(r"providerVersion: '([^']+)'", body)
            schema["provider_version"] = version[1] if version else schema["provider_version"]
            table = _table(body[body.find("synthesizeHclAttributes") :])
            schema[keys[kind]][found[1]] = {
                "version": 0,
                "block": source.block(name, table, f"{name}Config"),
            }
    missing = sorted(
        (wanted["TerraformResource"] - set(schema["resource_schemas"]))
        | (wanted["TerraformDataSource"] - set(schema["data_source_schemas"]))
    )
    if missing or schema["provider"] is None:
        raise InfraError(
            f"The wheel describes no {', '.join(missing) or 'provider'}.",
            where=str(wheel),
            todo="Take a cdktn-provider-google of 20.0.0 or later, and correct the type's name.",
        )
    return schema


def write_schema(schema: Mapping[str, Any], file: Path) -> None:
    """Compressed, and the same bytes for the same schema."""
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    file.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _modules(wheel: Path) -> Iterator[tuple[str, str]]:
    """JavaScript and type declarations of each folder under lib/ of the package in the wheel."""
    try:
        with zipfile.ZipFile(wheel) as outer:
            inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            packed = outer.read(inner)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise InfraError(
            "This is no wheel of cdktn-provider-google.",
            where=str(wheel),
            todo="Fetch one: pip download --no-deps cdktn-provider-google",
        ) from error
    texts: dict[str, dict[bool, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as package:
        for member in package:
            parts = member.name.split("/")
            if len(parts) < 4 or parts[1] != "lib" or not parts[-1].endswith((".js", ".d.ts")):
                continue
            content = package.extractfile(member)
            assert content is not None
            declares = parts[-1].endswith(".d.ts")
            folder = texts.setdefault(parts[2], {})
            folder[declares] = folder.get(declares, "") + content.read().decode()
    for _, folder in sorted(texts.items()):
        yield folder.get(False, ""), folder.get(True, "")


class _Module:
    """The classes of one resource's module, and what its declarations say about values."""

    def __init__(self, script: str, types: str) -> None:
        self.classes = {found[1]: (found[2], found[3]) for found in _CLASS.finditer(script)}
        self.tables = {found[1].lower(): found[2] for found in _FUNCTION.finditer(script)}
        self._types = types
        self._values: dict[tuple[str, str], list[str]] | None = None

    def _possible(self, interface: str, name: str) -> list[str] | None:
        if self._values is None:
            self._values = {}
            for declared in _INTERFACE.finditer(self._types):
                for field in _FIELD.finditer(declared[2]):
                    link = re.search(r"#(\w+)\}", field[1])
                    listed = _VALUES.search(field[1].replace("\n    * ", " "))
                    if link and listed:
                        values = [value.strip().strip('"') for value in listed[1].split(",")]
                        self._values[declared[1], link[1]] = values
        return self._values.get((interface, name))

    def block(self, name: str, table: Mapping[str, _Entry], interface: str) -> dict[str, Any]:
        """The schema of one class: its attributes and, below, its blocks."""
        body = self.classes[name][1]
        found = list(_ATTRIBUTE.finditer(body))
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for at, match in enumerate(found):
            end = found[at + 1].start() if at + 1 < len(found) else len(body)
            code, entry = body[match.end() : end], table.get(match[1])
            nested = _NESTED.search(code)
            inner = nested is not None and not nested[1].startswith(("cdktn.", "cdktf."))
            if nested is not None and inner:
                type_, block = self._nested(nested, entry, required=match[4] == "true")
                if block is not None:
                    blocks[match[1]] = block
                    continue
            else:
                type_ = _plain(name, match[1], nested[1] if nested else None, code, entry)
            attribute: dict[str, Any] = {"type": type_}
            for key, group in (("computed", 2), ("optional", 3), ("required", 4)):
                if match[group] == "true":
                    attribute[key] = True
            values = self._possible(interface, match[1])
            if values:
                attribute["enum"] = values
            attributes[match[1]] = attribute
        return _without_empty({"attributes": attributes, "block_types": blocks})

    def _nested(
        self, nested: re.Match[str], entry: _Entry | None, *, required: bool
    ) -> tuple[Type, dict[str, Any] | None]:
        """A nested object: its type where it is an attribute, its schema where it is a block."""
        made = nested[1].split(".")[-1]
        single, is_map = made.endswith("OutputReference"), made.endswith("Map")
        base = re.sub(r"(OutputReference|List|Map)$", "", made)
        table = _table(self.tables.get(base.lower(), ""))
        block = self.block(f"{base}OutputReference", table, base)
        of_set = nested[3] == "true" or (entry is not None and entry.kind == "set")
        struct = entry is not None and entry.kind == "struct"
        collection = "map" if is_map else "set" if of_set else "list"
        if entry is None or not entry.block:
            inner = ["object", _object_type(block)]
            return (inner if single and struct else [collection, inner]), None
        described: dict[str, Any] = {
            "nesting_mode": "single" if struct else collection,
            "block": block,
        }
        if single and not struct:
            described["max_items"] = 1
        if required and not struct:
            described["min_items"] = 1
        return None, described

    def provider(self, body: str) -> dict[str, Any]:
        """The provider's own block; its class keeps plain fields, so only the table tells types."""
        table = _table(body[body.find("synthesizeHclAttributes") :])
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for match in _ATTRIBUTE.finditer(body):
            entry = table.get(match[1])
            if entry is None:
                continue
            if entry.block:
                maker = re.search(r"(\w+)ToHclTerraform", entry.value)
                assert maker is not None
                inner = _table(self.tables[maker[1].lower()])
                fields = {
                    key: {"type": _stored(value), "optional": True} for key, value in inner.items()
                }
                blocks[match[1]] = {
                    "nesting_mode": "list",
                    "max_items": 1,
                    "block": {"attributes": fields},
                }
            else:
                need = "required" if match[4] == "true" else "optional"
                attributes[match[1]] = {"type": _stored(entry), need: True}
        return _without_empty({"attributes": attributes, "block_types": blocks})


def _plain(name: str, attribute: str, made: str | None, code: str, entry: _Entry | None) -> Type:
    """The type of an attribute that is no nested object."""
    of_set = "tolist(" in code or (entry is not None and entry.kind == "set")
    collection = "set" if of_set else "list"
    if made is not None:
        kind = made.split(".")[1]
        if kind in _MAPS:
            return ["map", _MAPS[kind]]
        if kind == "AnyMap":
            return "dynamic"
        if kind == "StringMapList":
            return [collection, ["map", "string"]]
    else:
        getter = _GETTER.search(code)
        kind = getter[1] if getter else ""
        if kind in ("String", "Number", "Boolean"):
            return _SIMPLE[kind.lower()]
        if kind in _MAPS:
            return ["map", _MAPS[kind]]
        if kind == "AnyMap":
            return ["map", "string"]
        if kind in ("List", "NumberList"):
            return [collection, "number" if kind == "NumberList" else "string"]
    raise InfraError(
        f"The type of {attribute} cannot be read.",
        where=f"class {name} of the wheel",
        todo="Teach speakfit_ops.infra.derive this form.",
    )


def _stored(entry: _Entry) -> Type:
    if entry.storage in _SIMPLE:
        return _SIMPLE[entry.storage]
    inner = {"stringList": "string", "numberList": "number"}.get(entry.storage)
    return [entry.kind, inner] if inner else ["map", "string"]


def _object_type(block: Mapping[str, Any]) -> dict[str, Type]:
    types = {name: value["type"] for name, value in block.get("attributes", {}).items()}
    for name, nested in block.get("block_types", {}).items():
        inner = ["object", _object_type(nested["block"])]
        mode = nested["nesting_mode"]
        types[name] = inner if mode == "single" else [mode, inner]
    return types


def _without_empty(block: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if value}

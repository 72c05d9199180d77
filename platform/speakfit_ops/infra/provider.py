"""A stand-in for a Terraform provider: the real schema, no cloud behind it.

It serves plugin protocol 6 on a Unix socket, and Terraform attaches to it as it does to a provider
under a debugger (`TF_REATTACH_PROVIDERS`): nothing is downloaded, installed or started anew for
each step. It validates by schema and overlay, plans what Google's provider would plan as far as
both tell, and applies by making values up. It never claims that Google would accept anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import string
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from speakfit_ops.infra.facts import FACTS
from speakfit_ops.infra.overlay import UNKNOWN, Facts, Problem, Unknown, problems, replaced
from speakfit_ops.infra.protocol import PACKAGE, messages
from speakfit_ops.infra.schema import Attribute, Block, ProviderSchema

Value = Any
"""A decoded value: None, bool, number, text, list, dict, or unknown."""

_CALLS = (
    "GetProviderSchema", "ValidateProviderConfig", "ConfigureProvider", "ValidateResourceConfig",
    "ValidateDataResourceConfig", "ValidateEphemeralResourceConfig", "UpgradeResourceState",
    "ReadResource", "PlanResourceChange", "ApplyResourceChange", "ReadDataSource",
    "OpenEphemeralResource", "RenewEphemeralResource", "CloseEphemeralResource", "GetFunctions",
    "StopProvider",
)  # fmt: skip
_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
_THREADS = 10
_FILLED_IN = {"id", "name", "project", "region", "address"}
"""What Google fills in although it could have been set."""


@dataclass(kw_only=True)
class Provider:
    """One provider as a server; `secrets` collects what must never be seen outside of it."""

    schema: ProviderSchema
    secrets: list[str] = field(default_factory=list)

    def GetProviderSchema(self, request: Any) -> Any:  # noqa: N802 - the protocol's names
        response = _message("GetProviderSchema.Response")
        response.provider.block.CopyFrom(_block(self.schema.provider))
        for ours, theirs in (
            (self.schema.resources, response.resource_schemas),
            (self.schema.data_sources, response.data_source_schemas),
            (self.schema.ephemeral, response.ephemeral_resource_schemas),
        ):
            for name, block in ours.items():
                theirs[name].block.CopyFrom(_block(block))
        response.server_capabilities.get_provider_schema_optional = True
        return response

    def ValidateResourceConfig(self, request: Any) -> Any:  # noqa: N802
        response = _message("ValidateResourceConfig.Response")
        block = self.schema.resources[request.type_name]
        facts = FACTS.get(request.type_name, Facts())
        for problem in problems(facts, block, _decode(request.config)):
            response.diagnostics.append(_diagnostic(problem))
        return response

    def UpgradeResourceState(self, request: Any) -> Any:  # noqa: N802
        state = json.loads(request.raw_state.json)
        return _message("UpgradeResourceState.Response", upgraded_state=_encode(state))

    def ReadResource(self, request: Any) -> Any:  # noqa: N802
        return _message("ReadResource.Response", new_state=request.current_state)

    def PlanResourceChange(self, request: Any) -> Any:  # noqa: N802
        response = _message("PlanResourceChange.Response", legacy_type_system=True)
        planned, prior = _decode(request.proposed_new_state), _decode(request.prior_state)
        if planned is None:
            response.planned_state.CopyFrom(request.proposed_new_state)
            return response
        block = self.schema.resources[request.type_name]

        def settle(name: str, attribute: Attribute, owner: dict[str, Value]) -> None:
            if attribute.write_only:
                owner[name] = None
            elif attribute.computed and owner.get(name) is None and prior is None:
                owner[name] = UNKNOWN

        _walk(block, planned, settle)
        response.planned_state.CopyFrom(_encode(planned))
        if prior is not None:
            for path in replaced(FACTS.get(request.type_name, Facts()), prior, planned):
                response.requires_replace.append(_attribute_path(path))
        return response

    def ApplyResourceChange(self, request: Any) -> Any:  # noqa: N802
        response = _message("ApplyResourceChange.Response", legacy_type_system=True)
        state = _decode(request.planned_state)
        if state is None:
            response.new_state.CopyFrom(request.planned_state)
            return response
        block, config = self.schema.resources[request.type_name], _decode(request.config)
        made_up = FACTS.get(request.type_name, Facts()).made_up
        seed = request.type_name + json.dumps(state, default=str, sort_keys=True)

        def fill(name: str, attribute: Attribute, owner: dict[str, Value]) -> None:
            if isinstance(owner.get(name), Unknown):
                if not attribute.read_only and name not in _FILLED_IN:
                    # Left out by the configuration; Google mostly leaves it empty, too.
                    owner[name] = None
                    return
                known = made_up.get(name) if owner is state else None
                owner[name] = known or _made_up(attribute.type, name, f"{seed}/{name}")
                if attribute.sensitive:
                    self.secrets.append(owner[name])

        def remember(name: str, attribute: Attribute, owner: dict[str, Value]) -> None:
            if attribute.write_only and isinstance(owner.get(name), str):
                self.secrets.append(owner[name])

        _walk(block, state, fill)
        _walk(block, config, remember)
        response.new_state.CopyFrom(_encode(state))
        return response

    def ReadDataSource(self, request: Any) -> Any:  # noqa: N802
        config = _decode(request.config)
        seed = request.type_name + json.dumps(config, default=str, sort_keys=True)

        def fill(name: str, attribute: Attribute, owner: dict[str, Value]) -> None:
            if attribute.computed and owner.get(name) is None:
                owner[name] = _made_up(attribute.type, name, f"{seed}/{name}")

        _walk(self.schema.data_sources[request.type_name], config, fill)
        return _message("ReadDataSource.Response", state=_encode(config))

    def OpenEphemeralResource(self, request: Any) -> Any:  # noqa: N802
        config = _decode(request.config)
        alphabet = string.ascii_letters + string.digits
        result = "".join(secrets.choice(alphabet) for _ in range(int(config["length"])))
        self.secrets.append(result)
        result_of = {**config, "result": result, "bcrypt_hash": _made_up("string", "hash", result)}
        return _message("OpenEphemeralResource.Response", result=_encode(result_of))

    def call(self, name: str) -> Callable[[Any, Any], Any]:
        """The handler of one RPC; those with nothing to say answer emptily."""
        ours: Callable[[Any], Any] = getattr(
            self, name, lambda request: _message(f"{name}.Response")
        )
        return lambda request, context: ours(request)


@contextmanager
def attached(providers: Sequence[Provider]) -> Iterator[dict[str, str]]:
    """Serve the providers; answers with the environment that makes Terraform attach to them."""
    from concurrent import futures

    import grpc

    with tempfile.TemporaryDirectory(prefix="speakfit-infra-") as folder:
        servers, addresses = [], {}
        for number, provider in enumerate(providers):
            server = grpc.server(
                futures.ThreadPoolExecutor(_THREADS),
                options=[("grpc.max_receive_message_length", -1)],
            )
            server.add_generic_rpc_handlers((_handlers(grpc, provider),))
            socket = f"{folder}/{number}.sock"
            server.add_insecure_port(f"unix:{socket}")
            server.start()
            servers.append(server)
            addresses[provider.schema.address] = {
                "Protocol": "grpc",
                "ProtocolVersion": 6,
                "Pid": os.getpid(),
                "Test": True,
                "Addr": {"Network": "unix", "String": socket},
            }
        try:
            yield {"TF_REATTACH_PROVIDERS": json.dumps(addresses)}
        finally:
            for server in servers:
                server.stop(None).wait()


def _handlers(grpc: Any, provider: Provider) -> Any:
    return grpc.method_handlers_generic_handler(
        f"{PACKAGE}.Provider",
        {
            name: grpc.unary_unary_rpc_method_handler(
                provider.call(name),
                request_deserializer=messages()[f"{name}.Request"].FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
            for name in _CALLS
        },
    )


def _decode(value: Any) -> Value:
    import msgpack

    if value.json:
        return json.loads(value.json)
    if not value.msgpack:
        return None
    return msgpack.unpackb(
        value.msgpack, raw=False, strict_map_key=False, ext_hook=lambda code, data: UNKNOWN
    )


def _encode(value: Value) -> Any:
    import msgpack

    return _message("DynamicValue", msgpack=msgpack.packb(value, default=_packed))


def _packed(value: Value) -> Any:
    """Terraform writes what is not known as an extension of type 0."""
    from msgpack import ExtType

    assert isinstance(value, Unknown)
    return ExtType(0, b"\x00")


def _message(name: str, **fields: Any) -> Any:
    return messages()[name](**fields)


def _block(block: Block) -> Any:
    found = _message("Schema.Block")
    for name, attribute in block.attributes.items():
        found.attributes.add(
            name=name,
            type=json.dumps(attribute.type).encode(),
            required=attribute.required,
            optional=attribute.optional,
            computed=attribute.computed,
            sensitive=attribute.sensitive,
            write_only=attribute.write_only,
        )
    for name, nested in block.blocks.items():
        found.block_types.add(
            type_name=name,
            block=_block(nested.block),
            nesting=_NESTING[nested.mode],
            min_items=nested.min_items,
            max_items=nested.max_items,
        )
    return found


def _diagnostic(problem: Problem) -> Any:
    return _message(
        "Diagnostic",
        severity=1,
        summary=problem.summary,
        detail=problem.detail,
        attribute=_attribute_path(problem.path),
    )


def _attribute_path(path: Sequence[str | int]) -> Any:
    found = _message("AttributePath")
    for step in path:
        if isinstance(step, int):
            found.steps.add(element_key_int=step)
        else:
            found.steps.add(attribute_name=step)
    return found


def _walk(
    block: Block, value: Value, act: Callable[[str, Attribute, dict[str, Value]], None]
) -> None:
    """`act` on each attribute of a value, in its blocks too; unknown blocks are skipped."""
    if not isinstance(value, dict):
        return
    for name, attribute in block.attributes.items():
        act(name, attribute, value)
    for name, nested in block.blocks.items():
        below = value.get(name)
        if nested.mode == "single":
            _walk(nested.block, below, act)
        elif isinstance(below, (list, Mapping)):
            for item in below.values() if isinstance(below, Mapping) else below:
                _walk(nested.block, item, act)


def _made_up(type_: Any, name: str, seed: str) -> Value:
    """A value of the type that reads as what it stands for; the same for the same seed."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    if type_ == "string":
        if name.endswith(("address", "host")) or name == "address":
            return f"10.{int(digest[:2], 16)}.{int(digest[2:4], 16)}.{int(digest[4:6], 16)}"
        return f"made-up-{name.replace('_', '-')}-{digest[:8]}"
    if type_ == "number":
        return 6378 if name == "port" else 0
    if type_ in ("bool", "dynamic"):
        return False if type_ == "bool" else None
    kind, inner = type_
    if kind in ("list", "set"):
        return [_made_up(inner, name, seed)]
    if kind == "map":
        return {}
    return {key: _made_up(value, key, f"{seed}/{key}") for key, value in inner.items()}

"""Terraform's plugin protocol 6 as messages, made from the compiled definition beside this file.

A descriptor set instead of generated Python: it loads with any protobuf of the last years, and
there is no code that nobody wrote. `python -m speakfit_ops.infra.protocol` compiles it anew (needs
grpcio-tools); a test holds that it is what tfplugin6.proto says.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "tfplugin6"
DEFINITION = Path(__file__).with_name(f"{PACKAGE}.proto")
COMPILED = Path(__file__).with_name(f"{PACKAGE}.binpb")


@cache
def messages() -> dict[str, Any]:
    """Every message class by its name within the package, `Schema.Block` for a nested one."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    found: dict[str, Any] = {}

    def take(descriptor: Any) -> None:
        name = descriptor.full_name.removeprefix(f"{PACKAGE}.")
        found[name] = message_factory.GetMessageClass(descriptor)
        for nested in descriptor.nested_types:
            take(nested)

    for file in descriptor_pb2.FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
        pool.Add(file)
        for descriptor in pool.FindFileByName(file.name).message_types_by_name.values():
            take(descriptor)
    return found


def compiled() -> bytes:
    """The definition as a descriptor set, by protoc."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / COMPILED.name
        status = protoc.main(["protoc", f"-I{DEFINITION.parent}", f"-o{out}", str(DEFINITION)])
        if status != 0:
            raise SystemExit(status)
        return out.read_bytes()


if __name__ == "__main__":
    COMPILED.write_bytes(compiled())

"""gRPC in front of the route table: bytes in, the shipped message classes, bytes out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from speakfit.emulator.answers import Failure, failure_of
from speakfit.emulator.backend import Backend
from speakfit.emulator.routes import ROUTES, Route
from speakfit.errors import InvalidArgument

_WORKING = 8
"""Calls worked on at once; more would only wait for each other."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _abort(context: Any, failure: Failure) -> None:
    if failure.details:
        packed = []
        for detail in failure.details:
            message = any_pb2.Any()
            message.Pack(detail)
            packed.append(message)
        status = status_pb2.Status(code=failure.number, message=failure.text, details=packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(_CODES[failure.number], failure.text)


def _implementation(
    route: Route, backend: Callable[[], Backend], gate: threading.Semaphore
) -> Callable[[bytes, Any], Any]:
    def call(raw: bytes, context: Any) -> Any:
        try:
            with gate:
                request = None
                if route.request is not None:
                    # Parsed here and not by gRPC, which would answer malformed bytes with
                    # INTERNAL.
                    try:
                        request = route.request.FromString(raw)
                    except DecodeError as error:
                        raise InvalidArgument("The request could not be parsed.") from error
                return route.answer(backend(), request)
        except Exception as error:
            failure = failure_of(error, where=route.rpc)
        _abort(context, failure)
        return None

    return call


class RouteTableHandler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Finds the route of a gRPC method; an unknown method is UNIMPLEMENTED by gRPC itself."""

    def __init__(self, backend: Callable[[], Backend]) -> None:
        """`backend` is asked for at every call, because a reset replaces it."""
        gate = threading.Semaphore(_WORKING)
        self._methods = {
            f"/{route.rpc}": grpc.unary_unary_rpc_method_handler(
                _implementation(route, backend, gate),
                response_serializer=lambda message: message.SerializeToString(),
            )
            for route in ROUTES
        }

    def service(self, handler_call_details: Any) -> Any:
        """The method of a call, or None."""
        return self._methods.get(handler_call_details.method)

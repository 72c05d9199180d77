"""The console: one HTML page without scripts or assets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speakfit.emulator.server import Emulator


def console_page(emulator: Emulator) -> str:
    """Policies, incidents and pages as HTML."""
    return f"<!doctype html><title>{emulator.grpc_address}</title>"

"""The same emulator, proxy and projects as the tests of alerts have."""

from __future__ import annotations

from tests.alerts.conftest import emulator, naps, project, proxy, target

__all__ = ["emulator", "naps", "project", "proxy", "target"]

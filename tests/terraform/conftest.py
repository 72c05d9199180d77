"""One copy of the estate, and what it plans and makes, for all tests that only look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from speakfit_ops.infra.estate import Estate, Size, estate
from speakfit_ops.infra.terraform import find_terraform


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The scale size, planned and applied without a cloud."""

    estate: Estate
    plan: dict[str, Any]
    seen: str
    """All that plan, show and apply printed."""


@pytest.fixture(scope="session")
def applied() -> Iterator[Applied]:
    terraform = find_terraform()
    if terraform is None:
        pytest.skip("no Terraform for this platform")
    with estate(terraform) as copy:
        seen = []
        for done in (
            copy.init(),
            copy.plan(Size.SCALE),
            copy.run("show", "-no-color", f"{Size.SCALE}.plan"),
            copy.run("apply", "-no-color", f"{Size.SCALE}.plan"),
        ):
            assert done.code == 0, done.text
            seen.append(done.text)
        yield Applied(estate=copy, plan=copy.shown(Size.SCALE), seen="\n".join(seen))

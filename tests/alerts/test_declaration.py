"""A finding about a catalog points at the line of the code that declares what it is about."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from alerts.declaration import Declarations
from alerts.document import Path as Field
from alerts.encode import policy_json

CATALOG = """
from datetime import timedelta

from alerts.objective import AvailabilitySlo
from alerts.policy import *
from speakfit.metrics import QUEUE_DEPTH, REQUESTS

GUIDANCE = Guidance(meaning="It is.", users_feel="Pain.", first_steps=("Look.",))
DEPTH = Signal(metric=QUEUE_DEPTH, resource_type="generic_task")


def full(above):
    return (
        Threshold(
            key="waiting",
            signal=DEPTH,
            aggregation=Aggregation(aligner=Aligner.ALIGN_MAX),
            above=above,
            duration=timedelta(minutes=5),  # of both
            missing_data=MissingData.KEEPS,
        ),
    )


WARNING = Policy(  # the warning
    subject="queue",
    severity=Severity.WARNING,
    title="Full",
    conditions=full(1),
    guidance=GUIDANCE,
)
CRITICAL = Policy(  # the critical one
    subject="queue",
    severity=Severity.CRITICAL,
    title="Full",
    conditions=full(2),
    guidance=GUIDANCE,
    owner="shop",  # of the critical one
)
OBJECTIVE = AvailabilitySlo(  # the objective
    subject="queue-answers",
    title="Answers",
    owner="shop",
    goal=0.999,
    bad=Signal(metric=REQUESTS, resource_type="generic_task", labels={"status_class": "5xx"}),
    total=Signal(metric=REQUESTS, resource_type="generic_task"),
    fewest_bad=10,
    guidance=GUIDANCE,  # of the objective
)
CATALOG = Catalog(
    name="declared",
    policies=(WARNING, CRITICAL, *OBJECTIVE.policies()),
    routes=tuple(
        Route(
            severity=severity,
            channel=Channel(
                id="all", display_name="All", type=ChannelType.PAGERDUTY, secret="SHOP_KEY"
            ),
        )
        for severity in (Severity.WARNING, Severity.CRITICAL)
    ),
)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "declared.py").write_text(CATALOG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("declared")
    sys.modules.pop("declared")


@pytest.mark.parametrize(
    ("policy_id", "field", "comment"),
    [
        ("queue-warning", (), "the warning"),
        ("queue-critical", (), "the critical one"),
        ("queue-critical", ("userLabels", "owner"), "of the critical one"),
        ("queue-critical", ("conditions", 0, "conditionThreshold", "duration"), "of both"),
        ("queue-answers-burn-1h-critical", (), "the objective"),
        ("queue-answers-burn-1h-critical", ("documentation", "links", 0), "of the objective"),
        ("queue-answers-burn-1h-critical", ("conditions", 1), "the objective"),
    ],
)
def test_a_field_is_found_where_it_is_written(
    module: ModuleType, policy_id: str, field: Field, comment: str
) -> None:
    catalog = module.CATALOG
    policy = next(one for one in catalog.policies if one.id == policy_id)
    body = policy_json(policy, catalog, runbook_base_url="https://r.test")
    origin = Declarations(catalog, "declared").origin(policy, body)
    at = origin.position(field)
    assert origin.file == "declared.py"
    assert at is not None
    assert CATALOG.splitlines()[at.line - 1].endswith(f"# {comment}")

"""A policy that somebody made in the console becomes ours, and nobody who is paged notices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.cloud import monitoring_v3

from alerts.adopt import adoption, afterwards
from alerts.apply import apply_plan
from alerts.decode import policy_of
from alerts.encode import mapping
from alerts.gateway import Gateway
from alerts.plan import Plan
from alerts.policies import CATALOG
from speakfit.emulator.server import Emulator
from speakfit.metrics import WORKERS_ALIVE
from speakfit.target import Target, TargetKind, alert_policy_client
from tests.alerts.conftest import KEYS, PROJECT, Run, apply, desired, fresh_emulator, plan
from tests.alerts.team import write_team
from tests.alerts.test_page import live_workers
from tests.alerts.transcript import command, commands, compare


def by_hand(target: Target, title: str = "Workers are gone", **labels: str) -> str:
    """A policy as the console makes it; returns its name."""
    condition = {
        "display_name": "GPU workers",
        "condition_threshold": {
            "filter": f'metric.type="{WORKERS_ALIVE.type}" resource.type="generic_task"',
            "comparison": "COMPARISON_LT",
            "threshold_value": 1,
            "duration": {"seconds": 120},
            "aggregations": [
                {
                    "alignment_period": {"seconds": 60},
                    "per_series_aligner": "ALIGN_MAX",
                    "cross_series_reducer": "REDUCE_MAX",
                }
            ],
        },
    }
    made = alert_policy_client(target).create_alert_policy(
        name=target.project_name,
        alert_policy=monitoring_v3.AlertPolicy(
            {
                "display_name": title,
                "combiner": "OR",
                "severity": "WARNING",
                "conditions": [condition],
                "user_labels": labels,
            }
        ),
    )
    return str(made.name)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Its clock moves, so it is nobody else's."""
    with fresh_emulator() as running:
        yield running


def test_an_adopted_policy_keeps_its_name_its_conditions_and_its_open_incident(
    emulator: Emulator, target: Target
) -> None:
    # What lives before: the metric, and an incident of a policy made by hand.
    target = Target(kind=TargetKind.EMULATOR, project=PROJECT, host=target.host)
    live_workers(emulator, target, 1, 3)
    name = by_hand(target, team="gpu")
    live_workers(emulator, target, 0, 6)
    (before,) = emulator.incidents()
    assert before["state"] == "open"

    with Gateway(target) as gateway:
        policy = gateway.read_policy(name)
        assert policy is not None
        made = policy_of(policy, subject="workers-gone")
        catalog = replace(CATALOG, policies=(made,))
        wanted = desired(catalog)
        live = gateway.read(catalog)
        change = adoption(policy, live, desired=wanted, policy_id="workers-gone-warning")
        assert change is not None
        assert change.mask == ("user_labels",)
        assert afterwards(change, live, wanted) is None, "the Python is exactly what is live"
        apply_plan(gateway, Plan(changes=(change,)), keys={})
        assert not [one for one in plan(gateway, catalog).changes if one.kind == "policy"]

        # Now the intended change comes, from code.
        intended = replace(made, exact_display_name="All workers are gone")
        apply(gateway, replace(catalog, policies=(intended,)))
        adopted = gateway.read_policy(name)
    live_workers(emulator, target, 0, 2)
    assert adopted is not None
    assert adopted["displayName"] == "All workers are gone"
    assert adopted["userLabels"]["team"] == "gpu"
    assert [one["name"] for one in adopted["conditions"]] == [
        one["name"] for one in policy["conditions"]
    ]
    (after,) = emulator.incidents()
    assert (after["id"], after["state"]) == (before["id"], "open")


MAKING = """
import team
from gone import GONE_WARNING
from dataclasses import replace

CATALOG = replace(team.CATALOG, policies=(*team.CATALOG.policies, GONE_WARNING))
"""


def test_transcript_of_an_adoption(target: Target, quick_alerts: Run, tmp_path: Path) -> None:
    at = f"--emulator {target.host}"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split(), "--catalog", "team", "--auto-approve").returncode == 0
    name = by_hand(target)
    number = name.rpartition("/")[2]
    session = command(quick_alerts, f"adopt {number} --as gone-warning {at} --catalog team")
    shown = quick_alerts("adopt", name, "--as", "gone-warning", *at.split(), "--catalog", "team")
    (tmp_path / "gone.py").write_text(shown.stdout, encoding="utf-8")
    (tmp_path / "both.py").write_text(MAKING, encoding="utf-8")
    session += commands(
        quick_alerts,
        (
            f"adopt {number} --as gone-warning {at} --catalog both",
            f"adopt {number} --as gone-warning {at} --catalog both --auto-approve",
            f"adopt {number} --as gone-warning {at} --catalog both --auto-approve",
            f"plan {at} --catalog both",
        ),
    )
    compare("adopt", session, EMULATOR=str(target.host))


def test_transcript_of_an_adoption_into_other_code(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team"
    write_team(tmp_path, subjects=("depth",))
    assert quick_alerts("apply", *at.split(), "--auto-approve").returncode == 0
    by_hand(target)
    write_team(tmp_path)
    session = commands(
        quick_alerts,
        (
            f"adopt 'Workers are gone' --as workers-warning {at} --auto-approve",
            f"plan {at}",
            f"apply {at} --auto-approve",
        ),
    )
    compare("adopt-other-code", session, EMULATOR=str(target.host))


def test_transcript_of_adoptions_that_are_refused(
    target: Target, quick_alerts: Run, tmp_path: Path
) -> None:
    at = f"--emulator {target.host} --catalog team --auto-approve"
    write_team(tmp_path)
    assert quick_alerts("apply", *at.split()).returncode == 0
    by_hand(target)
    by_hand(target, "Theirs", **{"managed-by": "terraform"})
    by_hand(target, "Another team's", **{"managed-by": "speakfit-alerts", "catalog": "other"})
    by_hand(target, "Twice")
    by_hand(target, "Twice")
    session = commands(
        quick_alerts,
        (
            f"adopt Nothing --as depth-warning {at}",
            f"adopt Twice --as depth-warning {at}",
            f"adopt Theirs --as depth-warning {at}",
            f'adopt "Another team\'s" --as depth-warning {at}',
            f"adopt 'Workers are gone' --as depth-warning {at}",
            f"adopt 'Depth (warning)' --as workers-warning {at}",
            f"adopt 'Workers are gone' --as gone-critical {at}",
            f"adopt 'Workers are gone' {at}",
        ),
    )
    compare("refused-adoptions", session, EMULATOR=str(target.host))


def test_a_policy_is_renamed_by_adopting_it_again(gateway: Gateway, target: Target) -> None:
    apply(gateway)
    first, *others = CATALOG.policies
    renamed = replace(first, subject="another-name")
    catalog = replace(CATALOG, policies=(renamed, *others))
    wanted, live = desired(catalog), gateway.read(catalog)
    (old,) = (one for one in live.policies if one["userLabels"]["alert-id"] == first.id)
    change = adoption(old, live, desired=wanted, policy_id=renamed.id)
    assert change is not None
    apply_plan(gateway, Plan(changes=(change,)), keys=KEYS)
    actions: list[Any] = [one.action for one in plan(gateway, catalog, prune=True).changes]
    assert actions == ["update"], "neither made anew nor deleted"
    found = mapping(alert_policy_client(target).get_alert_policy(name=old["name"]))
    assert found["conditions"] == old["conditions"]

"""The words of incidents and the variables of documentation."""

from __future__ import annotations

from datetime import timedelta

from speakfit.engine.points import SeriesKey
from speakfit.engine.text import (
    absence_summary,
    closed_summary,
    expand,
    expand_subject,
    threshold_summary,
    variables,
)

KEY = SeriesKey.of(
    metric_type="workload.googleapis.com/speakfit.queue.depth",
    metric_labels={"state": "waiting", "location": "metric"},
    resource_type="generic_task",
    resource_labels={"location": "us-central1"},
)
VALUES = variables(
    key=KEY,
    policy_display_name="Queue",
    policy_user_labels={"alert-id": "queue-depth-critical"},
    condition_display_name="depth",
    project="speakfit-local",
)


def test_summaries_speak_like_the_webhook() -> None:
    where = (
        "Queue depth for generic_task labels {location=us-central1} with metric labels "
        "{location=metric, state=waiting}"
    )
    assert threshold_summary(
        KEY, above=True, threshold=100, observed=120.5, metric_name="Queue depth"
    ) == (f"{where} is above the threshold of 100.000 with a value of 120.500.")
    assert threshold_summary(
        KEY, above=False, threshold=1, observed=0, metric_name="Queue depth"
    ) == (f"{where} is below the threshold of 1.000 with a value of 0.000.")
    assert absence_summary(KEY, duration=timedelta(minutes=10), metric_name="Queue depth") == (
        f"{where} has had no data for 10 minutes."
    )
    assert closed_summary(KEY, metric_name="Queue depth") == (
        f"{where} has returned to a normal state."
    )


def test_documentation_variables_are_filled_in() -> None:
    template = (
        "${policy.display_name}/${condition.display_name}: ${metric.type} "
        "${metric.label.state} ${resource.label.location} ${resource.type} ${project} "
        "${metric_or_resource.label.location} ${policy.user_label.alert-id}"
    )
    assert expand(template, VALUES) == (
        "Queue/depth: workload.googleapis.com/speakfit.queue.depth waiting us-central1 "
        "generic_task speakfit-local metric queue-depth-critical"
    )


def test_an_unknown_variable_becomes_null_and_values_are_not_expanded_again() -> None:
    assert expand("${nobody.knows} $ {x} ${", VALUES) == "(null) $ {x} ${"
    assert expand("${a}", {"a": "${b}", "b": "secret"}) == "${b}"


def test_a_subject_is_cut_to_255_bytes_at_a_character() -> None:
    subject = expand_subject("é" * 200, {})
    assert subject == "é" * 127

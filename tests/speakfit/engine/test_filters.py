"""The filter language: what parses, what matches, what prints equal, what is refused and how."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speakfit.engine.filters import canonical_filter, parse_filter
from speakfit.engine.points import SeriesKey
from speakfit.errors import InvalidArgument

KEY = SeriesKey.of(
    metric_type="workload.googleapis.com/http.server.request.duration",
    metric_labels={"http_route": "/v1/recordings", "code": "503", "a.b": "x"},
    resource_type="generic_task",
    resource_labels={"location": "us-central1", "task_id": "api-1"},
    system_labels={"name": "api"},
    user_labels={"team": "speech"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('resource.type = "generic_task"', True),
        ('resource.type = "gce_instance"', False),
        ('resource.type != "gce_instance"', True),
        ("resource.type = generic_task", True),
        ('resource.type="generic_task" AND metric.labels.code="503"', True),
        ('resource.type="generic_task" metric.label.code="200"', False),
        ('resource.type="generic_task"\nmetric.label.code="503"', True),
        ('metric.label.code="200" OR metric.label.code="503"', True),
        ('NOT metric.label.code="200"', True),
        ('metric.labels."a.b" = "x"', True),
        ("metric.labels.code >= 500", True),
        ("metric.labels.code > 503", False),
        ("metric.labels.http_route > 1", False),
        ('metric.labels.http_route = starts_with("/v1")', True),
        ('metric.labels.http_route != starts_with("/v1")', False),
        ('metric.labels.http_route = ends_with("ings")', True),
        ('metric.labels.http_route = has_substring("record")', True),
        ('metric.labels.http_route : "record"', True),
        ('metric.labels.code = one_of("500", "503")', True),
        ('metric.labels.code != one_of("500", "503")', False),
        ('metric.labels.code = monitoring.regex.full_match("5..")', True),
        ('metric.labels.code = monitoring.regex.full_match("5")', False),
        ('metadata.system_labels.name = "api"', True),
        ('metadata.user_labels."team" = "speech"', True),
        ('project = "speakfit-local"', True),
        ('project = "other"', False),
        ('group.id = "g1"', True),
        ('group.id = "g2"', False),
        ('metric.labels.absent = ""', True),
        ('metric.labels.absent != "x"', True),
    ],
)
def test_operators_and_functions_select_series(text: str, expected: bool) -> None:
    matched = parse_filter(text).matches(KEY, project="speakfit-local", group_ids=("g1",))
    assert matched is expected


def test_a_backslash_that_escapes_nothing_belongs_to_the_pattern() -> None:
    for pattern in (r"5\d+", r"5\\d+"):
        found = parse_filter(f'metric.labels.code = monitoring.regex.full_match("{pattern}")')
        assert found.matches(KEY)
        assert parse_filter(str(found)) == found


def test_or_binds_tighter_than_and() -> None:
    loose = 'metric.labels.code = "503" OR metric.labels.code = "500" AND resource.type = "x"'
    assert not parse_filter(loose).matches(KEY)
    assert canonical_filter(loose) == (
        '(metric.labels.code = "500" OR metric.labels.code = "503") AND resource.type = "x"'
    )


@pytest.mark.parametrize(
    "other",
    [
        'metric.type = "m" AND resource.type = "r" AND metric.labels.k = one_of("a", "b")',
        'resource.type="r" metric.type="m" metric.label.k=one_of("b","a")',
        '(resource.type = r) AND ((metric.type = "m") AND metric.labels."k" = one_of("b", "a"))',
        "metric.type='m'\n\tresource.type='r'\nmetric.labels.k = one_of('a', 'b', 'a')",
        'NOT NOT metric.type="m" AND resource.type="r" metric.label.k=one_of("a","b")',
    ],
)
def test_spelling_makes_no_difference_to_the_canonical_text(other: str) -> None:
    assert canonical_filter(other) == (
        'metric.labels.k = one_of("a", "b") AND metric.type = "m" AND resource.type = "r"'
    )


def test_different_filters_stay_different() -> None:
    assert parse_filter('metric.labels.k = "1"') != parse_filter('metric.labels.k != "1"')
    assert parse_filter('metric.labels.k = "a.b"') != parse_filter('metric.labels."k.a" = "b"')
    assert parse_filter('metric.labels.k = "a" AND project = "p"') != parse_filter(
        'metric.labels.k = "a" OR project = "p"'
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "The filter is empty."),
        ('metric.type = "a" AND', "syntax error at line 1, column 22, token ''"),
        ('(metric.type = "a"', "syntax error at line 1, column 19, token ''"),
        ('metric.type = "a" )', "syntax error at line 1, column 19, token ')'"),
        ('metric.type == "a"', "syntax error at line 1, column 13, token '=='"),
        ('metric.type = sounds_like("a")', 'unknown function "sounds_like"'),
        ('metric.type = starts_with("a", "b")', "wrong number of arguments"),
        ('metric.type > starts_with("a")', 'operator ">" does not take a function'),
        ('metric.labels.k = monitoring.regex.full_match("[")', "invalid regular expression"),
        ('colour = "red"', "unknown selector: colour"),
        ('metric.labels.k = "' + "x" * 2048 + '"', "must not exceed 2048 characters"),
        ("(" * 100 + 'metric.type="a"' + ")" * 100, "nested too deeply"),
    ],
)
def test_what_is_not_a_filter_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_filter(text)
    assert rule in str(refused.value)


def test_pinned_metric_types_follow_and_or_and_one_of() -> None:
    assert parse_filter('metric.type="a" resource.type="r"').metric_types == frozenset({"a"})
    assert parse_filter('metric.type="a" OR metric.type="b"').metric_types == frozenset({"a", "b"})
    assert parse_filter('metric.type=one_of("a","b")').metric_types == frozenset({"a", "b"})
    assert parse_filter('metric.type="a" OR project="p"').metric_types is None
    assert parse_filter('metric.type=starts_with("a")').metric_types is None
    assert parse_filter('NOT metric.type="a"').metric_types is None


_VALUES = st.text(alphabet='ab"\\ \n.é', max_size=6)
_LEAVES = st.builds(
    lambda label, operator, value: (
        f"metric.labels.{label} {operator} "
        + '"'
        + value.replace("\\", "\\\\").replace('"', '\\"')
        + '"'
    ),
    st.sampled_from(["a", "b", '"c.d"']),
    st.sampled_from(["=", "!=", ":"]),
    _VALUES,
)
_FILTERS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=8,
)


@given(_FILTERS, st.dictionaries(st.sampled_from(["a", "b", "c.d"]), _VALUES))
def test_printing_and_parsing_again_changes_neither_text_nor_meaning(
    text: str, labels: dict[str, str]
) -> None:
    parsed = parse_filter(text)
    again = parse_filter(str(parsed))
    key = SeriesKey.of(metric_type="m", metric_labels=labels)
    assert again == parsed
    assert str(again) == str(parsed)
    assert again.matches(key) == parsed.matches(key)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused_as_an_invalid_argument(text: str) -> None:
    # Anything but InvalidArgument escapes and fails the test.
    with suppress(InvalidArgument):
        assert parse_filter(str(parse_filter(text))) == parse_filter(text)

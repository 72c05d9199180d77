"""Every rule the engine follows: what it says, who says so, how sure we are, and its test.

docs/fidelity.md is generated from this table. `documented` rules are in Google's documentation or
protos; `observed` ones were seen in real answers, issues or captures; `assumed` ones are ours
until somebody checks them against the real service.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How sure we are of a rule."""

    DOCUMENTED = "documented"
    OBSERVED = "observed"
    ASSUMED = "assumed"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule; `test` is the pytest node or conformance case that fails when it is broken."""

    text: str
    citation: str
    status: Status
    test: str


_CASES = "tests/conformance"
_COMMON = "google.monitoring.v3 common.proto, Aggregation"
_ALERT = "google.monitoring.v3 alert.proto, AlertPolicy"
_SNOOZE = "google.monitoring.v3 snooze.proto, Snooze"
_FILTERS = "cloud.google.com/monitoring/api/v3/filters"
_DEPTH = "cloud.google.com/monitoring/alerts/concepts-indepth"
_SLO = "google.monitoring.v3 service.proto"
_SELECTING = "cloud.google.com/stackdriver/docs/solutions/slo-monitoring/api/timeseries-selectors"
_BURNING = "cloud.google.com/stackdriver/docs/solutions/slo-monitoring/alerting-on-budget-burn-rate"
_PARTIAL = "cloud.google.com/monitoring/alerts/partial-metric-data (from memory)"


@dataclass(frozen=True, kw_only=True)
class RulesOf:
    """Makes the rules whose tests are in one folder, or among the conformance cases."""

    folder: str

    def documented(self, text: str, citation: str, test: str) -> Rule:
        """A rule that Google writes down."""
        return self._rule(Status.DOCUMENTED, text, citation, test)

    def observed(self, text: str, citation: str, test: str) -> Rule:
        """A rule that was seen at work."""
        return self._rule(Status.OBSERVED, text, citation, test)

    def assumed(self, text: str, citation: str, test: str) -> Rule:
        """A rule of ours, until somebody knows better."""
        return self._rule(Status.ASSUMED, text, citation, test)

    def _rule(self, status: Status, text: str, citation: str, test: str) -> Rule:
        folder = _CASES if ".yaml" in test else self.folder
        return Rule(text=text, citation=citation, status=status, test=f"{folder}/{test}")


_ENGINE = RulesOf(folder="tests/speakfit/engine")
_documented, _observed, _assumed = _ENGINE.documented, _ENGINE.observed, _ENGINE.assumed
_SELECTS = "test_filters.py::test_operators_and_functions_select_series"

RULES: tuple[Rule, ...] = (
    # Filters
    _documented(
        "Selectors compare with = and != to text or to starts_with, ends_with, has_substring, "
        "one_of and monitoring.regex.full_match.",
        _FILTERS,
        _SELECTS,
    ),
    _observed(
        "Whitespace or a newline between two comparisons is AND; `label` and `labels` are the "
        "same; keys may be quoted.",
        "filters in GoogleCloudPlatform/monitoring-dashboard-samples",
        "test_filters.py::test_spelling_makes_no_difference_to_the_canonical_text",
    ),
    _assumed(
        "NOT binds tightest, then OR, then AND.",
        "google.aip.dev/160, which Google's filter languages follow",
        "test_filters.py::test_or_binds_tighter_than_and",
    ),
    _assumed(
        "An absent label compares like an empty string; <, <=, >, >= compare numbers and are "
        "false for anything else; `:` looks for a part of the text.",
        "no page found",
        _SELECTS,
    ),
    _observed(
        "`=~` is a syntax error, answered with line, column and token.",
        "GitHub issue terraform-infra-common#463",
        "policies.yaml::a regular expression operator is a syntax error",
    ),
    _documented(
        "Regular expressions are RE2's: no lookahead, no backreference, linear time.",
        _FILTERS,
        "policies.yaml::a regular expression is RE2's, without lookahead",
    ),
    _documented(
        "A filter has at most 2,048 characters.",
        _ALERT,
        "test_filters.py::test_what_is_not_a_filter_is_refused",
    ),
    # Alignment
    _documented(
        "The alignment window at t is (t - period, t] and slides with every evaluation.",
        _DEPTH,
        "test_align.py::test_windows_slide_with_the_evaluation",
    ),
    _documented(
        "Each aligner takes the metric kinds and value types that the proto lists.",
        _COMMON,
        "test_align.py::test_every_aligner_takes_exactly_what_the_api_says",
    ),
    _observed(
        "A wrong aligner is refused with its kind and value type.",
        "GitHub issues exposure-notifications#659, slo-generator#231",
        "test_align.py::test_every_aligner_takes_exactly_what_the_api_says",
    ),
    _documented(
        "MIN, MAX, MEAN, SUM, COUNT and STDDEV fold the points whose end lies in the window.",
        _COMMON,
        "test_align.py::test_gauge_aligners_fold_the_points_of_the_window",
    ),
    _assumed(
        "STDDEV is the population's; a window without points has no value, for COUNT too.",
        "no page found",
        "test_align.py::test_a_window_without_points_has_no_value",
    ),
    _documented(
        "DELTA is the growth between the ends of the window and RATE that growth per second of "
        "the period; periods without points are interpolated.",
        _COMMON,
        "test_align.py::test_growth_between_two_points_is_spread_evenly_over_empty_windows",
    ),
    _documented(
        "A new start time is a restart: growth before it is unknown, the new value is growth "
        "since the new start.",
        "google.monitoring.v3 common.proto, TimeInterval",
        "test_align.py::test_a_new_start_time_is_a_restart_even_when_the_value_rose",
    ),
    _assumed(
        "A cumulative value that falls without a new start time restarted after the last point.",
        "Prometheus counter semantics; Google asks writers for a new start time",
        "test_align.py::test_a_counter_that_fell_restarted_and_grew_by_its_new_value",
    ),
    _documented(
        "DELTA makes a DELTA distribution of a CUMULATIVE one.",
        f"{_COMMON}; GitHub issue superserve-ai/sandbox#380",
        "test_align.py::test_growth_of_a_cumulative_distribution_is_a_distribution",
    ),
    _documented(
        "Over a gap growth is interpolated, not extrapolated as Prometheus does.",
        _COMMON,
        "test_promtool.py::test_over_a_gap_growth_is_interpolated_where_prometheus_extrapolates",
    ),
    _documented(
        "A counter grew since its start time, which Prometheus does not know.",
        "google.monitoring.v3 common.proto, TimeInterval",
        "test_promtool.py::test_a_counter_grew_since_its_start_time_which_prometheus_does_not_know",
    ),
    _documented(
        "INTERPOLATE lies on the line between the points around the boundary.",
        _COMMON,
        "test_align.py::test_interpolation_lies_between_neighbours_and_ends_at_the_live_edge",
    ),
    _documented(
        "PERCENT_CHANGE compares ten-minute moving means, 0 to 0 is 0, from 0 is infinity, "
        "negative values are ignored.",
        _COMMON,
        "test_align.py::test_percent_change_compares_ten_minute_means",
    ),
    _documented(
        "A percentile lies in its bucket by linear interpolation: one value in [128, 256) has "
        "p50 192, p95 249.6, p99 254.7.",
        "cloud.google.com/monitoring/api/v3/distribution-metrics",
        "test_align.py::test_percentiles_interpolate_linearly_inside_the_bucket",
    ),
    _assumed(
        "Below the first bound values lie between 0 and it (or equal it, if it is not positive); "
        "above the last bound they equal it; without buckets there is no percentile.",
        "Prometheus histogram_quantile; Google's page does not say",
        "test_align.py::test_percentiles_at_the_edges",
    ),
    _documented(
        "Linear buckets have bounds offset + width * i, exponential ones scale * growth ** i.",
        "google.api distribution.proto",
        "test_align.py::test_linear_and_exponential_buckets_have_the_documented_bounds",
    ),
    _assumed(
        "Distributions with different buckets merge over the union of their bounds, counts "
        "spread evenly inside a split bucket.",
        "follows from linear interpolation; no page found",
        "test_align.py::test_merging_bucket_layouts_keeps_counts_and_percentiles",
    ),
    # Reduction
    _observed(
        "`resource.label.*` in group_by_fields stands for every label.",
        "the sample policy with an uptime check in GoogleCloudPlatform/k8s-config-connector",
        "test_reduce.py::test_a_star_groups_by_every_label",
    ),
    _documented(
        "A reducer folds the series that agree in every group_by field; resource.type is one.",
        _COMMON,
        "test_reduce.py::test_without_group_by_all_series_of_a_resource_type_become_one",
    ),
    _documented(
        "Reducers MEAN, MIN, MAX, SUM, STDDEV, COUNT and PERCENTILE act on aligned values.",
        _COMMON,
        "test_reduce.py::test_reducers_fold_the_series_of_each_group",
    ),
    _assumed(
        "A percentile of numbers interpolates linearly between the two nearest series.",
        "no page found",
        "test_reduce.py::test_reducers_fold_the_series_of_each_group",
    ),
    _assumed(
        "A group has a value where any of its series has one.",
        "no page found",
        "test_reduce.py::test_a_group_has_a_value_where_any_member_has_one",
    ),
    _documented(
        "A percentile across series is taken of their merged distributions.",
        _COMMON,
        "test_reduce.py::test_cumulative_histograms_give_a_p95_over_all_series",
    ),
    _documented(
        "Several aggregations apply in order.",
        f"{_ALERT}.Condition.MetricThreshold",
        "test_reduce.py::test_several_aggregations_apply_in_order",
    ),
    _assumed(
        "A later step sees one point per period of the step before, counted back from the "
        "evaluation time.",
        "no page found",
        "test_reduce.py::test_several_aggregations_apply_in_order",
    ),
    _documented(
        "A reducer needs an aligner; an aligner needs a period of 60 s to 25 h.",
        _COMMON,
        "test_reduce.py::test_wrong_aggregations_are_refused",
    ),
    # Conditions
    _documented(
        "The duration restarts whenever a measurement does not satisfy the condition.",
        _DEPTH,
        "test_incidents.py::test_the_duration_restarts_whenever_a_measurement_does_not_satisfy",
    ),
    _assumed(
        "A condition is met at the first evaluation that is the duration or more after the first "
        "violation of the run.",
        "Prometheus `for`; Google's example leaves it open by one evaluation",
        "test_incidents.py::test_the_duration_restarts_whenever_a_measurement_does_not_satisfy",
    ),
    _documented(
        "Unspecified missing data is NO_OP: not evaluated, so what was stays.",
        f"{_ALERT}.Condition.EvaluationMissingData",
        "test_incidents.py::test_missing_data_by_default_keeps_what_was",
    ),
    _documented(
        "INACTIVE evaluates missing data as false, which closes.",
        f"{_ALERT}.Condition.EvaluationMissingData",
        "test_incidents.py::test_inactive_closes_and_restarts_when_data_is_missing",
    ),
    _documented(
        "ACTIVE evaluates missing data as true.",
        f"{_ALERT}.Condition.EvaluationMissingData",
        "test_incidents.py::test_active_counts_missing_data_as_violation_once_there_was_data",
    ),
    _assumed(
        "ACTIVE needs a series that has had data.",
        _PARTIAL,
        "test_incidents.py::test_active_counts_missing_data_as_violation_once_there_was_data",
    ),
    _documented(
        "Ratios divide series with the same labels.",
        f"{_ALERT}.Condition.MetricThreshold",
        "test_incidents.py::test_a_ratio_divides_series_with_the_same_labels",
    ),
    _assumed(
        "A ratio without a denominator, or with one of zero, is no measurement.",
        "no page found",
        "test_incidents.py::test_a_denominator_of_zero_is_no_measurement",
    ),
    _documented(
        "A trigger needs a count of violating series, 1 when unset.",
        f"{_ALERT}.Condition.Trigger",
        "test_incidents.py::test_a_trigger_count_needs_that_many_series",
    ),
    _assumed(
        "A trigger percentage is of the series that have had data and are not gone.",
        f"{_ALERT}.Condition.Trigger names the percentage, not its base",
        "test_incidents.py::test_a_trigger_percentage_counts_the_series_that_are_known",
    ),
    _documented(
        "Absence needs a point after the policy was created or changed.",
        "cloud.google.com/monitoring/alerts/metric-absence",
        "test_incidents.py::test_absence_needs_a_point_after_the_policy_was_written",
    ),
    _assumed(
        "Absence counts from the end of the newest point, of a group from its newest series.",
        "no page found",
        "test_incidents.py::test_absence_counts_from_the_last_point",
    ),
    _assumed(
        "MQL, PromQL, SQL, log and forecast conditions are stored and never evaluated here.",
        "ours; Google evaluates them",
        "test_incidents.py::test_what_is_not_evaluated_never_opens_and_never_looks_healthy",
    ),
    # Service level objectives
    _documented(
        "A threshold condition may name an objective by a time-series selector in place of a "
        "filter; aggregations are not used then.",
        "cloud.google.com/stackdriver/docs/solutions/slo-monitoring/api/create-policy-api",
        "test_objectives.py::test_a_condition_on_an_objective_needs_one_that_exists_and_has_no_"
        "denominator",
    ),
    _documented(
        "A lookback period has a unit of ns, us, ms, s, m or h.",
        _SELECTING,
        "test_objectives.py::test_lookback_periods_have_units",
    ),
    _observed(
        "A lookback period need not be quoted.",
        "alert policies of GoogleCloudPlatform/cloud-ops-sandbox#184",
        "test_objectives.py::test_lookback_periods_have_units",
    ),
    _documented(
        "Alerts look back at most 24 hours.",
        f"{_BURNING}, Alerting policies and lookback periods",
        "test_objectives.py::test_a_selector_that_is_wrong_is_refused",
    ),
    _assumed(
        "Alerts look back at least a minute.",
        "no page found; the shortest alignment period",
        "test_objectives.py::test_a_selector_that_is_wrong_is_refused",
    ),
    _documented(
        "The burn rate is the bad share of the lookback period, divided by what the goal allows.",
        _BURNING,
        "test_objectives.py::test_a_burn_rate_is_the_bad_share_of_the_lookback_over_what_the_goal_"
        "allows",
    ),
    _documented(
        "Of good, bad and total two are given, and good and bad are together the total.",
        f"{_SLO}, TimeSeriesRatio",
        "test_objectives.py::test_a_burn_rate_is_the_bad_share_of_the_lookback_over_what_the_goal_"
        "allows",
    ),
    _assumed(
        "All series of an objective count together, and its incidents bear the selector in place "
        "of a metric.",
        "no page found",
        "test_objectives.py::test_the_observed_value_of_an_incident_is_the_burn_rate_and_its_"
        "series_the_selector",
    ),
    _documented(
        "Without errors the burn rate is zero.",
        _BURNING,
        "test_objectives.py::test_without_service_nothing_burns_and_a_service_without_errors_"
        "burns_nothing",
    ),
    _assumed(
        "Without service in the lookback period there is no burn rate.",
        "no page found",
        "test_objectives.py::test_without_service_nothing_burns_and_a_service_without_errors_"
        "burns_nothing",
    ),
    _documented(
        "Of a distribution the values within a range, which is estimated, are good.",
        f"{_SLO}, DistributionCut",
        "test_objectives.py::test_values_outside_a_cut_burn_the_budget",
    ),
    _assumed(
        "Values are spread evenly in their bucket; what is above the last bound is good only "
        "where the range has no end.",
        "follows from linear percentiles; no page found",
        "test_objectives.py::test_values_are_spread_evenly_in_their_buckets",
    ),
    _assumed(
        "Windows-based and basic indicators, and selectors other than the burn rate, are stored "
        "and never evaluated here.",
        "ours; Google evaluates them",
        "test_objectives.py::test_what_is_not_measured_here_is_never_healthy",
    ),
    _assumed(
        "A condition on an objective that does not exist answers 404.",
        "no page found; what a metric that does not exist answers",
        "test_objectives.py::test_a_condition_on_an_objective_needs_one_that_exists_and_has_no_"
        "denominator",
    ),
    # Incidents
    _documented(
        "OR opens for any condition that is met.",
        f"{_ALERT}.ConditionCombinerType",
        "test_incidents.py::test_or_opens_for_any_condition",
    ),
    _documented(
        "AND is satisfied by conditions that are met on different resources.",
        f"{_ALERT}.ConditionCombinerType",
        "test_incidents.py::test_and_is_satisfied_by_different_resources",
    ),
    _documented(
        "AND_WITH_MATCHING_RESOURCE needs all conditions met on one resource.",
        f"{_ALERT}.ConditionCombinerType",
        "test_incidents.py::test_and_with_matching_resource_needs_one_resource",
    ),
    _documented(
        "AND never matches metric labels.",
        f"{_ALERT}.ConditionCombinerType",
        "test_incidents.py::test_and_does_not_match_labels",
    ),
    _assumed(
        "Every violating series of every condition has an incident of its own, under AND too.",
        "cloud.google.com/monitoring/alerts troubleshooting page (from memory)",
        "test_incidents.py::test_every_violating_series_has_an_incident_of_its_own",
    ),
    _assumed(
        "The auto-close timer starts when data has been missing for 15 minutes.",
        _PARTIAL,
        "test_incidents.py::test_auto_close_waits_a_quarter_of_an_hour_and_its_own_time",
    ),
    _assumed(
        "Auto-close is seven days when unset.",
        "console default; most of Google's samples set 604800s",
        "test_incidents.py::test_auto_close_is_seven_days_when_unset",
    ),
    _assumed(
        "Incidents about missing data close 24 hours after auto-close.",
        _PARTIAL,
        "test_incidents.py::test_active_incidents_stay_a_day_longer_than_auto_close",
    ),
    _documented(
        "A disabled policy opens no incidents.",
        "cloud.google.com/monitoring/alerts/incidents-events",
        "test_incidents.py::test_a_disabled_policy_closes_what_is_open_and_opens_nothing",
    ),
    _assumed(
        "A policy that is disabled closes its open incidents.",
        "no page found",
        "test_incidents.py::test_a_disabled_policy_closes_what_is_open_and_opens_nothing",
    ),
    _assumed(
        "An incident closes when its condition is removed from the policy.",
        "no page found",
        "test_incidents.py::test_an_incident_of_a_condition_that_was_removed_closes",
    ),
    _assumed(
        "A policy has at most 1,000 open incidents.",
        "incidents-events says there is a limit; the number is from memory",
        "test_incidents.py::test_a_policy_opens_at_most_a_thousand_incidents",
    ),
    _assumed(
        "A series that found no room opens when another incident of the policy closes; the first "
        "conditions and keys come first.",
        "no page found",
        "test_incidents.py::test_what_found_no_room_opens_when_there_is_room_in_a_replay_as_in_"
        "single_steps",
    ),
    _documented(
        "A snooze closes the open incidents of its policies.",
        f"{_SNOOZE}; cloud.google.com/monitoring/alerts/snooze",
        "test_incidents.py::test_a_snooze_closes_what_is_open_and_what_is_still_wrong_afterwards_"
        "opens_anew",
    ),
    _documented(
        "While a snooze lasts no incidents are opened.",
        f"{_SNOOZE}; cloud.google.com/monitoring/alerts/snooze",
        "test_incidents.py::test_a_snooze_opens_nothing_but_durations_go_on",
    ),
    _documented(
        "A snooze is for the policies it names and, with a filter, for the series that pass.",
        f"{_SNOOZE}.Criteria",
        "test_incidents.py::test_a_snooze_is_for_its_policies_and_the_series_of_its_filter_only",
    ),
    _assumed(
        "Conditions are evaluated during a snooze: what is still met at its end, which is not "
        "part of it, opens then.",
        "the proto says through the end time; what follows is not said",
        "test_incidents.py::test_a_snooze_closes_what_is_open_and_what_is_still_wrong_afterwards_"
        "opens_anew",
    ),
    _assumed(
        "A snoozed series counts for triggers and combiners all the same.",
        "no page found",
        "test_incidents.py::test_a_snoozed_series_still_counts_for_the_trigger_and_the_other_"
        "condition",
    ),
    _assumed(
        "INT64 values are calculated with as doubles: beyond 2**53 the last digits are lost.",
        "ours; the store keeps the points exactly",
        "test_incidents.py::test_whole_numbers_beyond_two_to_the_53rd_are_compared_as_doubles",
    ),
    # Notifications
    _documented(
        "Notification prompts are [OPENED] or [OPENED, CLOSED]; without CLOSED nobody hears of "
        "the end.",
        f"{_ALERT}.AlertStrategy",
        "test_notices.py::test_prompts_can_leave_the_closing_out",
    ),
    _assumed(
        "Without prompts opening and closing are notified.",
        "no page found; the API's older behaviour",
        "test_notices.py::test_all_channels_hear_of_opening_and_closing_when_no_prompts_are_named",
    ),
    _documented(
        "Channels of a strategy are reminded of an open incident every renotify_interval.",
        f"{_ALERT}.AlertStrategy.NotificationChannelStrategy",
        "test_notices.py::test_reminders_come_every_interval_while_the_incident_is_open",
    ),
    _assumed(
        "Where several strategies name a channel the shortest interval counts; channels that the "
        "policy does not have are not told.",
        "no page found",
        "test_notices.py::test_the_shortest_interval_counts_and_strangers_are_not_told",
    ),
    # Policies
    _documented(
        "1 to 6 conditions; a log or MQL condition stands alone.",
        _ALERT,
        "policies.yaml::a policy has at most six conditions",
    ),
    _observed(
        "GT and LT only.",
        "GitHub issues terraform-provider-google#16862, magic-modules#17496",
        "policies.yaml::only above and below are compared",
    ),
    _observed(
        "Durations are whole minutes.",
        "GitHub issue monitoring-dashboard-samples#179",
        "policies.yaml::a duration has whole minutes",
    ),
    _documented(
        "Names, labels, documentation and links have the limits of the proto.",
        _ALERT,
        "policies.yaml::documentation has at most 10240 bytes",
    ),
    _observed(
        "Missing-data handling needs a duration, even an explicit NO_OP, in MQL too.",
        "GitHub issues terraform-provider-google#16892, terraform-infra-common#401",
        "policies.yaml::missing data needs a duration even as NO_OP",
    ),
    _observed(
        "Auto-close is at least 30 minutes; metric policies have no notification rate limit.",
        "GitHub issues karaoke-gen#788, terraform-infra-common#352",
        "policies.yaml::auto-close takes at least half an hour",
    ),
    _observed(
        "A threshold on a metric that does not exist answers 404.",
        "GitHub issues terraform-provider-google#11102, cross-media-measurement#4350",
        "policies.yaml::a metric that nobody has written is not found",
    ),
    _observed(
        "A threshold filter must restrict resource.type, to a type that exists, once.",
        "GitHub issues nodejs-monitoring#46, terraform-provider-google#13349, "
        "terraform-infra-common#886",
        "policies.yaml::a filter names a resource type that exists",
    ),
    _assumed(
        "A threshold that would compare a distribution is refused.",
        "no page found",
        "policies.yaml::a threshold compares numbers",
    ),
    # Words
    _observed(
        "Summaries read like those of webhook 1.2, values with three decimals.",
        "captures of webhook 1.2 in public repositories",
        "test_text.py::test_summaries_speak_like_the_webhook",
    ),
    _documented(
        "Documentation variables are filled in; a subject is cut to 255 bytes afterwards.",
        "cloud.google.com/monitoring/alerts/doc-variables; alert.proto, Documentation.subject",
        "test_text.py::test_documentation_variables_are_filled_in",
    ),
    _assumed(
        "A variable without a value becomes (null).",
        "alerts/doc-variables (from memory)",
        "test_text.py::test_an_unknown_variable_becomes_null_and_values_are_not_expanded_again",
    ),
)
"""The table."""

"""The rules the emulator follows around the engine: wires, stores, channels, delivery, PagerDuty.

Together with speakfit.engine.rules it makes the table of docs/fidelity.md.
"""

from __future__ import annotations

from speakfit.engine.rules import Rule, RulesOf

_SERVICE = "google.monitoring.v3 metric_service.proto"
_QUOTAS = "cloud.google.com/monitoring/quotas"
_OURS = "ours"
_NOT_FOUND = "no page found"


_EMULATOR = RulesOf(folder="tests/speakfit/emulator")
_documented, _observed, _assumed = _EMULATOR.documented, _EMULATOR.observed, _EMULATOR.assumed

EMULATOR_RULES: tuple[Rule, ...] = (
    # Writing
    _documented(
        "A write holds 1 to 200 series with one point each; the valid ones are written although "
        "others fail, and a CreateTimeSeriesSummary counts them.",
        f"{_SERVICE}, CreateTimeSeries",
        "writing.yaml::valid series are written when others fail",
    ),
    _observed(
        "Series that fail alike share one text, `timeSeries[0-2] (example metric.type=…): write "
        "for resource=… failed with: …`; faults of a field are told by field.",
        "GitHub issues opentelemetry-operations-python#431, firezone#8026, telegraf#13725",
        "writing.yaml::points come at most every five seconds",
    ),
    _documented(
        "One point in 5 s a series; at most 25 h old and 5 min ahead.",
        f"{_QUOTAS}; google.monitoring.v3 common.proto, TimeInterval",
        "writing.yaml::a point after five seconds is taken",
    ),
    _documented(
        "A new start time lies at least a millisecond after the end of the last interval.",
        "google.monitoring.v3 common.proto, TimeInterval",
        "writing.yaml::a new start lies after the end of the last interval",
    ),
    _documented(
        "BOOL goes with GAUGE only, DELTA not with custom.googleapis.com, STRING not with user "
        "metrics.",
        "cloud.google.com/monitoring/api/v3/kinds-and-types; google.api metric.proto",
        "descriptors.yaml::a custom metric is no DELTA",
    ),
    _observed(
        "A metric keeps its kind and value type.",
        "GitHub issues firezone#8026, micrometer#2160",
        "writing.yaml::a metric keeps its value type",
    ),
    _documented(
        "Unit and description are set by the first point that has them.",
        "google.monitoring.v3 metric.proto, TimeSeries",
        "writing.yaml::unit and description are set by the first point that has them",
    ),
    _observed(
        "A distribution has a bound, no more counts than buckets and a finite mean.",
        "GitHub issues opencensus-go-exporter-stackdriver#98 and #41, prometheus-engine#144",
        "writing.yaml::a distribution has no more counts than buckets",
    ),
    _assumed("NaN is no value.", _NOT_FOUND, "writing.yaml::a number is a number"),
    _assumed(
        "A resource's project_id is the project written to, whatever the label says.",
        _NOT_FOUND,
        "test_durability.py::test_one_series_spelt_in_two_ways_is_a_duplicate",
    ),
    _assumed(
        "Enum numbers without a name are refused; fields without a name are skipped over gRPC and "
        "refused in JSON.",
        "proto3; what Google's server makes of unknown numbers was not found",
        "writing.yaml::a kind number nobody knows is refused",
    ),
    # Descriptors and resources
    _observed(
        "Labels of a descriptor come back sorted, launchStage and metadata are dropped, resource "
        "types filled in.",
        "k8s-config-connector, golden logs of MonitoringMetricDescriptor",
        "descriptors.yaml::labels come back sorted and resource types are filled in",
    ),
    _observed(
        "Creating and deleting a descriptor is seen late.",
        "k8s-config-connector, golden logs of MonitoringMetricDescriptor",
        "test_metrics.py::test_descriptors_appear_and_go_late_when_asked_to",
    ),
    _assumed(
        "How late is a choice of the start, at once unless asked for.",
        f"{_OURS}; Google says up to ten minutes",
        "test_metrics.py::test_descriptors_appear_and_go_late_when_asked_to",
    ),
    _observed(
        "10,000 descriptors a project below custom.googleapis.com, 25,000 below each other domain.",
        f"{_QUOTAS} for the numbers, GitHub issue prometheus-engine#542 for the words",
        "test_limits.py::test_a_project_has_at_most_ten_thousand_custom_metrics",
    ),
    _observed(
        "Label keys hold letters, digits and underscores; labels of other than custom metrics are "
        "text; 30 labels, 200 for Prometheus.",
        "GitHub issues opentelemetry-operations-go#98, opentelemetry-operations-java#159, "
        f"k8s-stackdriver#192; {_QUOTAS}",
        "descriptors.yaml::labels of workload metrics are text",
    ),
    _assumed(
        "Kind and value type of a descriptor cannot be upserted.",
        _NOT_FOUND,
        "descriptors.yaml::an upsert keeps kind and type",
    ),
    _assumed(
        "User metrics may be written to 13 resource types; Google lists 20.",
        "cloud.google.com/monitoring/custom-metrics/creating-metrics",
        "writing.yaml::user metrics go to some resource types only",
    ),
    _assumed(
        "A policy may name a metric of a Google service that nobody has written: its kind is "
        "guessed from what the policy does to it.",
        f"{_OURS}; Google knows them all",
        "test_corpus.py::test_a_published_policy_lives_over_grpc_and_rest",
    ),
    _documented(
        "Resource types are filtered by type and by the labels they have.",
        f"{_SERVICE}, ListMonitoredResourceDescriptorsRequest.filter",
        "descriptors.yaml::resource types are filtered by type and label as the reference shows",
    ),
    # Reading
    _documented(
        "ListTimeSeries reads (start, end], newest point first; a page counts points, or series "
        "with HEADERS.",
        f"{_SERVICE}, ListTimeSeriesRequest; common.proto, TimeInterval",
        "reading.yaml::an interval is open at its start and closed at its end",
    ),
    _assumed(
        "An interval without a start asks for the points at its end.",
        "common.proto, TimeInterval, says both that the start must be given and what it defaults "
        "to",
        "reading.yaml::an end alone asks for one instant",
    ),
    _assumed(
        "Aligned points are counted back from the end of the interval; at most 100,000 of them a "
        "series are answered.",
        _NOT_FOUND,
        "reading.yaml::aligned points end where their periods end, counted back from the end",
    ),
    _observed(
        "A filter on a resource type that the metric cannot have is refused.",
        "GitHub issue stackdriver_exporter#104",
        "reading.yaml::a filter names a resource type that the metric can have",
    ),
    _assumed(
        "Counting makes the unit 1, RATE appends /s, PERCENT_CHANGE makes it %.",
        _NOT_FOUND,
        "reading.yaml::counting changes the unit",
    ),
    _assumed(
        "Points are forgotten after 42 days at once, and not thinned out.",
        "Cloud Monitoring keeps user metrics six weeks at full precision",
        "test_limits.py::test_points_are_forgotten_after_the_retention",
    ),
    _assumed(
        "Organizations and folders are answered UNIMPLEMENTED.",
        f"{_OURS}; Google knows them",
        "reading.yaml::organizations have no series here",
    ),
    # JSON and HTTP
    _observed(
        "JSON that does not fit is refused with every fault, one a line, and a "
        "google.rpc.BadRequest.",
        "GitHub issues google-wallet/rest-samples#22, zed#62539; pull request "
        "monitoring-dashboard-samples#694",
        "input.yaml::two unknown fields are both told",
    ),
    _assumed(
        "A body is JSON whatever its content type says, at most 8 MiB, and may be gzip.",
        f"{_OURS}; Google documents gzip and refuses a form's content type",
        "input.yaml::a content type of another kind is read as JSON",
    ),
    _assumed(
        "Paths and verbs nobody knows are a 404 in JSON, a 405 for verbs outside the common five.",
        f"{_OURS}; Google answers with a page",
        "input.yaml::a path nobody knows",
    ),
    # Lists
    _documented(
        "Lists of policies and channels are filtered and ordered by fields, labels, .size and -.",
        "cloud.google.com/monitoring/api/v3/sorting-and-filtering",
        "lists.yaml::an order by a label, then by a reversed name",
    ),
    _assumed(
        "In these filters NOT binds tightest, then AND, then OR; a map holds its keys.",
        _NOT_FOUND,
        "lists.yaml::AND binds tighter than OR",
    ),
    _assumed(
        "Without an order lists come as things were created, 1,000 a page.",
        _NOT_FOUND,
        "lists.yaml::policies come in the order of their creation, counted",
    ),
    _documented(
        "A page token is good for the listing it came from and no other.",
        "google.aip.dev/158",
        "lists.yaml::a page token belongs to its filter",
    ),
    # Policies
    _documented(
        "An update without a mask replaces everything; conditions sent with their name keep it.",
        "google.monitoring.v3 alert_service.proto, UpdateAlertPolicyRequest",
        "masks.yaml::conditions keep the names that are sent, get new ones else, and go when left "
        "out",
    ),
    _documented(
        "A mask may name documentation.content or user_label.KEY.",
        "google.monitoring.v3 alert_service.proto, UpdateAlertPolicyRequest.update_mask",
        "masks.yaml::a mask reaches one label by the documented user_label.KEY",
    ),
    _observed(
        "Masks come in snake_case (gcloud) and camelCase (Terraform).",
        "requests of gcloud 528, recorded traffic of Terraform and Config Connector",
        "masks.yaml::a mask may be camelCase as Terraform sends it",
    ),
    _assumed(
        "Keys in masks may hold dots and be quoted; what a mask names and the update lacks is "
        "cleared.",
        "google.aip.dev/161 and 134",
        "masks.yaml::a key with dots may be quoted",
    ),
    _observed(
        "Ids of policies, conditions and channels are numbers of up to 20 digits.",
        "k8s-config-connector, recorded traffic of 2024-06",
        "test_policies.py::test_a_new_policy_gets_names_records_and_is_enabled",
    ),
    _assumed(
        "A policy has at most 16 channels, all of its own project.",
        "the number is from memory",
        "policies.yaml::a channel of another project does not exist",
    ),
    _observed(
        "A channel that does not exist is a 404, a name that is none a 400.",
        "GitHub issues terraform-provider-google#25878, provider-upjet-gcp#498",
        "policies.yaml::a channel is named by its resource name",
    ),
    # Channels
    _observed(
        "Labels of a channel are those of its type, with Google's words for missing and others.",
        "GitHub issues terraform-provider-google#5499, yor#323",
        "resources.yaml::a channel has no other labels",
    ),
    _assumed(
        "Channel types are the eight met in public use.",
        "public repositories; the list of Google's server was not found",
        "resources.yaml::a channel type exists",
    ),
    _assumed(
        "A secret comes back as twelve stars and its last four characters.",
        "that it is obfuscated is documented, the form is not",
        "resources.yaml::a secret comes back as stars",
    ),
    _assumed(
        "Stars that are written back leave the secret as it was.",
        "gcloud reads, edits and writes back",
        "test_policies.py::test_a_stored_key_is_never_shown_and_survives_being_written_back",
    ),
    _observed(
        "A channel in use is deleted by force only.",
        "k8s-config-connector, recorded traffic of 2024-06; its words are ours",
        "resources.yaml::a channel in use is kept",
    ),
    _assumed(
        "Only phones are verified; a code is G- and six digits, good for an hour, and shown at "
        "/emulator/v1/verificationCodes because nothing can be sent to a phone.",
        f"notification_service.proto has the calls, the rest is {_OURS}",
        "test_policies.py::test_a_phone_is_verified_with_the_code_that_was_sent_to_it",
    ),
    _documented(
        "A verified channel's code verifies an equal channel.",
        "google.monitoring.v3 notification_service.proto, GetNotificationChannelVerificationCode",
        "test_policies.py::test_a_phone_is_verified_with_the_code_that_was_sent_to_it",
    ),
    _assumed(
        "PagerDuty and webhooks are delivered to, e-mail with a mail server; other types are "
        "stored and shown as not delivered.",
        _OURS,
        "test_notifications.py::test_channels_that_nothing_is_delivered_to_are_shown_so",
    ),
    # Snoozes
    _documented(
        "A snooze names 1 to 16 policies, one with a filter; it starts now or later, its criteria "
        "stay, and once it has ended it is read-only.",
        "google.monitoring.v3 snooze.proto, snooze_service.proto",
        "resources.yaml::an end that is now cancels a snooze",
    ),
    _assumed(
        "A snooze may name policies that do not exist, of its own project only.",
        _NOT_FOUND,
        "resources.yaml::a snooze names policies of its own project",
    ),
    _assumed(
        "A snooze covers evaluations from a watermark before its start, because they would be told "
        "while it lasts.",
        _OURS,
        "test_snoozes.py::test_a_snooze_closes_what_is_open_and_resolves_its_page",
    ),
    # Dashboards
    _observed(
        "Members that the shipped messages lack are kept where the discovery document or a sample "
        "has them; any other name is refused.",
        "monitoring v1 discovery document; GoogleCloudPlatform/monitoring-dashboard-samples and "
        "its pull request #694",
        "test_dashboards.py::test_fields_that_no_published_message_has_survive_an_edit_over_grpc",
    ),
    _documented(
        "A threshold of an XyChart has neither color nor direction; an alert chart names a policy.",
        "google.monitoring.dashboard.v1 metrics.proto, Threshold, and alertchart.proto, AlertChart",
        "test_dashboards.py::test_what_no_dashboard_can_be_is_refused_by_name",
    ),
    _documented(
        "An update with an etag that is not the current one is refused.",
        "google.monitoring.dashboard.v1 dashboard.proto, Dashboard.etag",
        "resources.yaml::of two edits the second is a conflict",
    ),
    _assumed(
        "That refusal is ABORTED; an etag is 32 hex digits of the content; without one the last "
        "edit wins.",
        "google.aip.dev/154",
        "resources.yaml::without an etag the last edit wins",
    ),
    # Evaluation
    _assumed(
        "Policies are evaluated on multiples of 60 s, 60 s behind the present so that late points "
        "are in.",
        "Google's example evaluates every minute; how far behind is not said",
        "test_limits.py::test_evaluation_keeps_to_its_grid_a_watermark_behind",
    ),
    _assumed(
        "Missed evaluations of up to an hour are caught up; after more only the latest counts.",
        _OURS,
        "test_limits.py::test_evaluation_keeps_to_its_grid_a_watermark_behind",
    ),
    _assumed(
        "After a stop of more than five minutes only what was open is remembered.",
        _OURS,
        "test_paging.py::test_a_long_stop_pages_nobody_for_the_silence_while_everything_was_stopped",
    ),
    _assumed(
        "A deleted policy closes what it left open.",
        _NOT_FOUND,
        "test_paging.py::test_deleting_a_policy_closes_its_incident_and_resolves_the_page",
    ),
    # Delivery
    _observed(
        "Webhooks get schema 1.2: the same incident_id at opening and closing, values as text.",
        "captures of webhook 1.2 in public repositories",
        "test_notifications.py::test_a_webhook_is_told_of_opening_and_closing_in_schema_1_2",
    ),
    _assumed(
        "PagerDuty gets a trigger with the incident's id as dedup key, the subject as summary and "
        "the documentation in custom_details; only documentation, severity and identity should be "
        "relied on.",
        "Google publishes no body and no capture was found",
        "test_paging.py::test_a_bad_metric_pages_with_its_runbook_and_recovery_resolves_the_page",
    ),
    _assumed(
        "Mails carry what a webhook does, subject `[ALERT - OPEN] …`.",
        _NOT_FOUND,
        "test_notifications.py::test_a_mail_is_sent_and_waits_while_the_server_says_later",
    ),
    _assumed(
        "A notification is tried until it is taken or refused for good, in order for an incident.",
        _OURS,
        "test_paging.py::test_a_page_that_pagerduty_could_not_take_is_sent_when_it_is_back",
    ),
    # PagerDuty
    _documented(
        "Dedup keys match under one routing key only; acknowledge and resolve without an open "
        "alert are dropped; a trigger after a resolve opens a new incident.",
        "PagerDuty developer docs, Events API v2",
        "test_pagerduty_events.py::test_keys_match_only_under_their_own_service_and_urgency_"
        "follows_it",
    ),
    _documented(
        "About 120 events a minute and routing key, then 429.",
        "PagerDuty developer docs, Events API v2",
        "test_pagerduty_events.py::test_more_than_120_events_a_minute_and_key_are_told_to_wait",
    ),
    _assumed(
        "Any REST token of the documented form is good.",
        f"{_OURS}; there are no accounts to protect",
        "test_pagerduty_clients.py::test_a_call_without_a_token_in_the_documented_form_is_a_401",
    ),
)
"""The table."""

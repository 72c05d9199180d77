"""What a tile of a dashboard shows: the widgets of google.monitoring.dashboard.v1, as values.

Everything the published messages can say is here and nothing else, under their names. A value
that the API would refuse cannot be made: a CatalogError names the field and the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from speakfit.engine.align import Aligner
from speakfit.engine.reduce import Reducer
from speakfit.errors import CatalogError


class PlotType(StrEnum):
    """How a data set is drawn."""

    LINE = "LINE"
    STACKED_AREA = "STACKED_AREA"
    STACKED_BAR = "STACKED_BAR"
    HEATMAP = "HEATMAP"


class TargetAxis(StrEnum):
    """Left or right."""

    Y1 = "Y1"
    Y2 = "Y2"


class ChartMode(StrEnum):
    """How the lines of a chart are told apart."""

    COLOR = "COLOR"
    X_RAY = "X_RAY"
    STATS = "STATS"


class Scale(StrEnum):
    """How an axis is divided."""

    LINEAR = "LINEAR"
    LOG10 = "LOG10"


class Color(StrEnum):
    """The state that a scorecard shows beyond a threshold."""

    YELLOW = "YELLOW"
    RED = "RED"


class Direction(StrEnum):
    """On which side of a threshold a scorecard shows its state."""

    ABOVE = "ABOVE"
    BELOW = "BELOW"


class SparkChartType(StrEnum):
    """What is drawn behind the number of a scorecard."""

    SPARK_LINE = "SPARK_LINE"
    SPARK_BAR = "SPARK_BAR"


class RankingMethod(StrEnum):
    """By what lines are ranked."""

    METHOD_MEAN = "METHOD_MEAN"
    METHOD_MAX = "METHOD_MAX"
    METHOD_MIN = "METHOD_MIN"
    METHOD_SUM = "METHOD_SUM"
    METHOD_LATEST = "METHOD_LATEST"


class RankingDirection(StrEnum):
    """Which end of a ranking is shown."""

    TOP = "TOP"
    BOTTOM = "BOTTOM"


class OutlierMethod(StrEnum):
    """How unusual lines are found."""

    METHOD_CLUSTER_OUTLIER = "METHOD_CLUSTER_OUTLIER"


class TextFormat(StrEnum):
    """How a text is read."""

    MARKDOWN = "MARKDOWN"
    RAW = "RAW"


class HorizontalAlignment(StrEnum):
    """Where in its line a text begins."""

    H_LEFT = "H_LEFT"
    H_CENTER = "H_CENTER"
    H_RIGHT = "H_RIGHT"


class VerticalAlignment(StrEnum):
    """Where in its tile a text stands."""

    V_TOP = "V_TOP"
    V_CENTER = "V_CENTER"
    V_BOTTOM = "V_BOTTOM"


class Padding(StrEnum):
    """Room around a text."""

    P_EXTRA_SMALL = "P_EXTRA_SMALL"
    P_SMALL = "P_SMALL"
    P_MEDIUM = "P_MEDIUM"
    P_LARGE = "P_LARGE"
    P_EXTRA_LARGE = "P_EXTRA_LARGE"


class FontSize(StrEnum):
    """How large a text is."""

    FS_EXTRA_SMALL = "FS_EXTRA_SMALL"
    FS_SMALL = "FS_SMALL"
    FS_MEDIUM = "FS_MEDIUM"
    FS_LARGE = "FS_LARGE"
    FS_EXTRA_LARGE = "FS_EXTRA_LARGE"


class PointerLocation(StrEnum):
    """Where a text's tile points away from itself."""

    PL_TOP = "PL_TOP"
    PL_RIGHT = "PL_RIGHT"
    PL_BOTTOM = "PL_BOTTOM"
    PL_LEFT = "PL_LEFT"
    PL_TOP_LEFT = "PL_TOP_LEFT"
    PL_TOP_RIGHT = "PL_TOP_RIGHT"
    PL_RIGHT_TOP = "PL_RIGHT_TOP"
    PL_RIGHT_BOTTOM = "PL_RIGHT_BOTTOM"
    PL_BOTTOM_RIGHT = "PL_BOTTOM_RIGHT"
    PL_BOTTOM_LEFT = "PL_BOTTOM_LEFT"
    PL_LEFT_BOTTOM = "PL_LEFT_BOTTOM"
    PL_LEFT_TOP = "PL_LEFT_TOP"


class PieChartType(StrEnum):
    """A pie with or without a hole."""

    PIE = "PIE"
    DONUT = "DONUT"


class MetricVisualization(StrEnum):
    """How a table shows a value."""

    NUMBER = "NUMBER"
    BAR = "BAR"


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How series become lines: align each, reduce across them.

    Charts align over longer times than alerts may, so this is not `alerts.policy.Aggregation`.
    """

    alignment_period: timedelta | None = None
    per_series_aligner: Aligner = Aligner.ALIGN_NONE
    cross_series_reducer: Reducer = Reducer.REDUCE_NONE
    group_by_fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A span of time between two RFC 3339 stamps."""

    start_time: str = ""
    end_time: str = ""


@dataclass(frozen=True, kw_only=True)
class PickTimeSeriesFilter:
    """Shows only the lines at one end of a ranking."""

    ranking_method: RankingMethod | None = None
    num_time_series: int = 0
    direction: RankingDirection | None = None
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class StatisticalTimeSeriesFilter:
    """Shows only unusual lines."""

    ranking_method: OutlierMethod | None = None
    num_time_series: int = 0


_Picked = PickTimeSeriesFilter | StatisticalTimeSeriesFilter | None


@dataclass(frozen=True, kw_only=True)
class TimeSeriesFilter:
    """Series by filter, aggregated."""

    filter: str
    aggregation: Aggregation | None = None
    secondary_aggregation: Aggregation | None = None
    picked: _Picked = None


@dataclass(frozen=True, kw_only=True)
class RatioPart:
    """One side of a ratio."""

    filter: str
    aggregation: Aggregation | None = None


@dataclass(frozen=True, kw_only=True)
class TimeSeriesFilterRatio:
    """One selection of series divided by another."""

    numerator: RatioPart
    denominator: RatioPart
    secondary_aggregation: Aggregation | None = None
    picked: _Picked = None


@dataclass(frozen=True, kw_only=True)
class TimeSeriesQuery:
    """What is shown: a filter, a ratio of two, or a query in PromQL or MQL; exactly one."""

    source: TimeSeriesFilter | TimeSeriesFilterRatio | None = None
    prometheus_query: str = ""
    time_series_query_language: str = ""
    unit_override: str = ""
    output_full_duration: bool = False

    def __post_init__(self) -> None:
        given = (self.source, self.prometheus_query, self.time_series_query_language)
        if sum(1 for one in given if one) > 1:
            raise CatalogError(
                "It asks for more than one thing.",
                where="timeSeriesQuery",
                todo="Keep one of filter, ratio, prometheusQuery and timeSeriesQueryLanguage.",
            )


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a chart draws as one kind of line."""

    time_series_query: TimeSeriesQuery
    plot_type: PlotType | None = None
    legend_template: str = ""
    min_alignment_period: timedelta | None = None
    target_axis: TargetAxis | None = None


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A line at a value; on a scorecard the state beyond it."""

    value: float = 0.0
    label: str = ""
    color: Color | None = None
    direction: Direction | None = None
    target_axis: TargetAxis | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of a chart."""

    label: str = ""
    scale: Scale | None = None


@dataclass(frozen=True, kw_only=True)
class ChartOptions:
    """How a chart is shown."""

    mode: ChartMode | None = None


@dataclass(frozen=True, kw_only=True)
class XyChart:
    """Lines, areas, bars or a heat map over time."""

    data_sets: tuple[DataSet, ...]
    thresholds: tuple[Threshold, ...] = ()
    timeshift_duration: timedelta | None = None
    x_axis: Axis | None = None
    y_axis: Axis | None = None
    y2_axis: Axis | None = None
    chart_options: ChartOptions | None = None

    def __post_init__(self) -> None:
        for number, one in enumerate(self.thresholds):
            if one.color is not None or one.direction is not None:
                raise CatalogError(
                    "A threshold of a chart has a color or a direction.",
                    where=f"thresholds[{number}]",
                    todo="Leave them out: the API allows both on scorecards only.",
                )


@dataclass(frozen=True, kw_only=True)
class GaugeView:
    """A needle between two bounds."""

    lower_bound: float = 0.0
    upper_bound: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SparkChartView:
    """A small chart behind the number."""

    spark_chart_type: SparkChartType | None = None
    min_alignment_period: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class BlankView:
    """Nothing but the number."""


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """The newest value, and whether it is good."""

    time_series_query: TimeSeriesQuery
    view: GaugeView | SparkChartView | BlankView | None = None
    thresholds: tuple[Threshold, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextStyle:
    """How a text looks; colours are `#RRGGBB`."""

    background_color: str = ""
    text_color: str = ""
    horizontal_alignment: HorizontalAlignment | None = None
    vertical_alignment: VerticalAlignment | None = None
    padding: Padding | None = None
    font_size: FontSize | None = None
    pointer_location: PointerLocation | None = None


@dataclass(frozen=True, kw_only=True)
class Text:
    """Words."""

    content: str = ""
    format: TextFormat | None = None
    style: TextStyle | None = None


@dataclass(frozen=True, kw_only=True)
class Blank:
    """Room."""


@dataclass(frozen=True, kw_only=True)
class AlertChart:
    """What one alert policy looks at, with its threshold and its incidents.

    `name` is the policy's resource name; in a catalog it is `policy:ID`.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class TableDisplayOptions:
    """Columns that are shown; the API ignores it."""

    shown_columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TableDataSet:
    """The rows of a table."""

    time_series_query: TimeSeriesQuery
    table_template: str = ""
    min_alignment_period: timedelta | None = None
    table_display_options: TableDisplayOptions | None = None


@dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """A column, and whether it is shown."""

    column: str
    visible: bool = False


@dataclass(frozen=True, kw_only=True)
class TimeSeriesTable:
    """The newest values in rows."""

    data_sets: tuple[TableDataSet, ...]
    metric_visualization: MetricVisualization | None = None
    column_settings: tuple[ColumnSettings, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CollapsibleGroup:
    """Lies over other tiles, which can be folded away together."""

    collapsed: bool = False


@dataclass(frozen=True, kw_only=True)
class SingleViewGroup:
    """Lies over other tiles, of which one is shown at a time."""


@dataclass(frozen=True, kw_only=True)
class SectionHeader:
    """A title between tiles, which the console's table of contents lists."""

    subtitle: str = ""
    divider_below: bool = False


@dataclass(frozen=True, kw_only=True)
class LogsPanel:
    """Log entries as they come."""

    filter: str = ""
    resource_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MonitoredResource:
    """A resource by type and labels."""

    type: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class IncidentList:
    """Open and past incidents, of all policies unless some are named."""

    monitored_resources: tuple[MonitoredResource, ...] = ()
    policy_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PieChartDataSet:
    """The slices of a pie."""

    time_series_query: TimeSeriesQuery
    slice_name_template: str = ""
    min_alignment_period: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class PieChart:
    """Shares of a whole."""

    data_sets: tuple[PieChartDataSet, ...]
    chart_type: PieChartType | None = None
    show_labels: bool = False


@dataclass(frozen=True, kw_only=True)
class ErrorReportingPanel:
    """Groups of errors of Error Reporting."""

    project_names: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Widget:
    """One thing that is shown, under its title."""

    content: (
        XyChart
        | Scorecard
        | Text
        | Blank
        | AlertChart
        | TimeSeriesTable
        | CollapsibleGroup
        | LogsPanel
        | IncidentList
        | PieChart
        | ErrorReportingPanel
        | SectionHeader
        | SingleViewGroup
        | None
    ) = None
    title: str = ""
    id: str = ""

"""The generated tables of the documents; cog writes them in place (`make docs`).

Each answers with Markdown made from the declarations that the code itself reads, so that a table
cannot say anything else than what runs; the suite fails when a document is stale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def settings_table() -> str:
    """One row a setting, from the fields of speakfit.settings.Settings."""
    from datetime import timedelta

    from speakfit.settings import Settings

    def shown(value: object) -> str:
        if value is None:
            return "unset"
        if isinstance(value, timedelta):
            return f"{value.total_seconds():.0f} s"
        return f"`{value}`"

    return _table(
        ("variable", "default", "meaning"),
        [
            (f"`{name.upper()}`", shown(field.default), field.description or "")
            for name, field in Settings.model_fields.items()
        ],
    )


def recall_table() -> str:
    """One row a model and method, from speakfit.fillers.RECALL."""
    from speakfit.fillers import RECALL

    return _table(
        ("model", "method", "found", "recall", "made up"),
        [
            (
                model,
                f"`{method}`",
                f"{recall.found} of {recall.spoken}",
                f"{recall.share:.2f}",
                str(recall.invented),
            )
            for (model, method), recall in RECALL.items()
        ],
    )


def connections_table() -> str:
    """One row a size of the founding document, from the same function that makes the pools."""
    from speakfit.pool import api_pool, cloud_sql_connections
    from speakfit.settings import Settings

    sizes = (
        ("development", "db-custom-2-8192", 8, 1, 1),
        ("production", "db-custom-4-16384", 16, 3, 2),
        ("scale", "db-custom-8-32768", 32, 5, 5),
    )
    rows = []
    for name, tier, memory_gib, instances, workers in sizes:
        settings = Settings(
            database_max_connections=cloud_sql_connections(memory_gib),
            api_replicas=2 * instances,
            worker_replicas=workers,
            worker_processes=1,
        )
        pool = api_pool(settings)
        limit = settings.database_max_connections
        rows.append(
            (
                name,
                f"`{tier}`",
                str(limit),
                f"{instances}, {2 * instances} in a rollout",
                str(workers),
                f"{pool.kept} kept, {pool.most} at most",
            )
        )
    head = ("size", "tier", "max_connections", "API instances", "workers", "pool of an instance")
    return _table(head, rows)


def metrics_table() -> str:
    """One row a metric, from speakfit.metrics."""
    from speakfit.metrics import METRICS

    return _table(
        ("metric", "kind and type", "unit", "labels", "meaning"),
        [
            (
                f"`{metric.name}`",
                f"{metric.kind} {metric.value_type}",
                f"`{metric.unit}`",
                ", ".join(f"`{metric.label_key(label)}`" for label in metric.labels) or "none",
                metric.description,
            )
            for metric in METRICS
        ],
    )


def labels_table() -> str:
    """One row a label of a metric, and every value it may have."""
    from speakfit.metrics import LABEL_LIMITS, LABEL_VALUES, METRICS

    names = dict.fromkeys(label for metric in METRICS for label in metric.labels)
    return _table(
        ("label", "values"),
        [
            (
                f"`{name}`",
                ", ".join(f"`{value}`" for value in LABEL_VALUES[name])
                if name in LABEL_VALUES
                else f"at most {LABEL_LIMITS[name]}",
            )
            for name in names
        ],
    )


def fidelity_table() -> str:
    """One row a rule of engine and emulator: what, who says so, how sure we are, its test."""
    from speakfit.emulator.rules import EMULATOR_RULES
    from speakfit.engine.rules import RULES

    return _table(
        ("rule", "status", "source", "test"),
        [
            (rule.text, str(rule.status), rule.citation, f"`{rule.test}`")
            for rule in (*RULES, *EMULATOR_RULES)
        ],
    )


def policies_table() -> str:
    """One row a policy of the catalog."""
    from alerts.commands.policies import policy_rows

    return _table(("policy", "severity", "pages when"), policy_rows())


def dashboards_table() -> str:
    """One row a board: its sections, and the subjects whose policies it shows."""
    from alerts.policies import CATALOG
    from dashboards.catalog import BOARDS
    from dashboards.links import board_of

    subjects = dict.fromkeys(policy.subject for policy in CATALOG.policies)
    return _table(
        ("dashboard", "shows", "look here when it pages"),
        [
            (
                f"`{board.id}`",
                ", ".join(section.title for section in board.sections),
                ", ".join(f"`{one}`" for one in subjects if board_of(one).id == board.id),
            )
            for board in BOARDS
        ],
    )


def drills_table() -> str:
    """One row a policy that was drilled, from docs/drills.json."""
    from loadtest.drill_record import read_records
    from loadtest.wording import minutes

    return _table(
        ("policy", "fault", "fault to page", "fix to resolve", "runbook's blocks", "proven"),
        [
            (
                f"`{record.policy}`",
                record.fault,
                minutes(record.detect),
                minutes(record.resolve),
                ", ".join(f"`{block}`" for block in record.blocks),
                f"{record.date}, `{record.commit}`",
            )
            for record in read_records()
        ],
    )


def runbook_dashboard(subject: str) -> str:
    """Where to look while following a runbook: production's board with the subject's charts."""
    from dashboards.links import board_of, dashboard_url

    board = board_of(subject)
    return f"Look: [{board.title}]({dashboard_url(board.id, project='speakfit-prod')})\n"


def lint_rules() -> str:
    """One section a rule of `python -m alerts lint`, from alerts.checks."""
    from alerts.checks import all_rules

    return "\n".join(
        f"### {rule.id}\n\n**{rule.level.capitalize()}**: {rule.finds}. {rule.why}\n\n"
        f"To do: {rule.remedy}\n"
        for rule in all_rules()
    )


def infra_sizes_table() -> str:
    """One row a choice that differs between the sizes, from the plans kept for review."""
    from speakfit_ops.infra.estate import Size, kept

    def block(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
        for name in names:
            values = (values.get(name) or [{}])[0]
        return values

    def told(size: Size) -> tuple[str, ...]:
        plan = kept(size)
        [service] = plan.of("google_cloud_run_v2_service")
        scaling = block(service.values, "template", "scaling")
        databases = [
            block(found.values, "settings") for found in plan.of("google_sql_database_instance")
        ]
        [redis] = plan.of("google_redis_instance")
        [template] = plan.of("google_compute_instance_template")
        [scaler] = plan.of("google_compute_region_autoscaler")
        policy = block(scaler.values, "autoscaling_policy")
        hours = [found["duration_sec"] // 3600 for found in policy.get("scaling_schedules", ())]
        accelerator = block(template.values, "guest_accelerator").get("type", "nvidia-l4")
        spot = block(template.values, "scheduling")["provisioning_model"] == "SPOT"
        return (
            f"{scaling['min_instance_count']} to {scaling['max_instance_count']}",
            f"`{databases[0]['tier']}`, "
            + (
                "standby in another zone"
                if databases[0]["availability_type"] == "REGIONAL"
                else "one zone"
            )
            + (f", {len(databases) - 1} replica" if len(databases) > 1 else ""),
            f"{redis.values['memory_size_gb']} GB, "
            + ("standby" if redis.values["tier"] == "STANDARD_HA" else "no standby"),
            f"{policy['min_replicas']} to {policy['max_replicas']} `{accelerator}`"
            + (", Spot" if spot else "")
            + (f", one for {hours[0]} h each weekday" if hours else ""),
            "yes" if plan.of("google_compute_global_forwarding_rule") else "given a domain",
            "yes" if plan.of("google_compute_backend_bucket") else "no",
            str(len(plan.resources)),
        )

    names = ("API instances", "PostgreSQL", "Redis", "GPU workers", "load balancer", "CDN",
             "resources")  # fmt: skip
    columns = [told(size) for size in Size]
    return _table(
        ("", *(str(size) for size in Size)),
        [(name, *cells) for name, *cells in zip(names, *columns, strict=True)],
    )


def infra_cost_table() -> str:
    """One row a part: dollars a month of each size, beside the founding document's."""
    from alerts.catalog import load_catalog
    from speakfit_ops.infra.cost import estimate
    from speakfit_ops.infra.estate import Size, kept
    from speakfit_ops.infra.prices import read_prices
    from speakfit_ops.infra.pricing import hoped, rows

    book, catalog = read_prices(), load_catalog("alerts.policies")
    columns = [
        [
            (name, f"${monthly:,.0f} ({hoped(figure)})")
            for name, monthly, figure in rows(estimate(kept(size), book, size, catalog))
        ]
        for size in Size
    ]
    return _table(
        ("", *(str(size) for size in Size)),
        [(cells[0][0], *(cell[1] for cell in cells)) for cells in zip(*columns, strict=True)],
    )


_ASK = """
import contextlib, io, json, re, runpy, sys

module = sys.argv[1]

def told(*path):
    sys.argv = [module, *path, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
    yield path, said.getvalue()
    # Whatever lists commands has help for each of them, too.
    _, _, commands = said.getvalue().partition("Commands")
    for command in re.findall(r"(?m)^[│ ] {1,2}([a-z][a-z-]*) {2,}", commands):
        yield from told(*path, command)

print(json.dumps(list(told())))
"""
"""One process for all commands of a module: importing takes longer than telling."""


def command_help(module: str) -> str:
    """The `--help` of one of our commands and of each of its subcommands, as code blocks."""
    import json
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", _ASK, module],
        env={**os.environ, "COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    parts = []
    for path, said in json.loads(done.stdout):
        text = "\n".join(line.rstrip() for line in said.strip().splitlines())
        name = " ".join(("python -m", module, *path))
        parts.append(f"{'###' if path else '##'} {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)

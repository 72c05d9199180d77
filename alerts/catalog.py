"""Finds a catalog, SpeakFit's or anybody's, and a policy in it."""

from __future__ import annotations

import importlib
from pathlib import Path

from alerts.nearest import did_you_mean
from alerts.policy import Catalog, Channel, Policy
from speakfit.errors import CatalogError

DEFAULT_CATALOG = "alerts.policies"


def load_catalog(module_name: str) -> Catalog:
    """The CATALOG of a module; a CatalogError says what is wrong with it and where."""
    try:
        module = importlib.import_module(module_name)
    except CatalogError:
        raise
    except ModuleNotFoundError as error:
        raise CatalogError(
            f"No module named {error.name!r}.",
            where=f"--catalog {module_name}",
            todo="Name an importable module, for example alerts.policies, and run where it is "
            "found.",
        ) from error
    except (Exception, SystemExit) as error:
        # A catalog is anybody's Python: whatever it raises is told as its fault, not as ours.
        raise CatalogError(
            f"The catalog raises {type(error).__name__}: {error}",
            where=f"--catalog {module_name}, {_last_line_of(error)}",
            todo="Correct it there.",
        ) from error
    catalog = getattr(module, "CATALOG", None)
    if not isinstance(catalog, Catalog):
        raise CatalogError(
            "The module has no CATALOG.",
            where=f"--catalog {module_name}",
            todo="Add CATALOG = alerts.policy.Catalog(...) to it.",
        )
    return catalog


def _last_line_of(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown line"
    return f"{Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}"


def find_policy(catalog: Catalog, policy_id: str) -> Policy:
    """A policy by id; a CatalogError proposes the nearest when there is none."""
    by_id = {policy.id: policy for policy in catalog.policies}
    if policy_id in by_id:
        return by_id[policy_id]
    raise CatalogError(
        f"No policy is called {policy_id!r}.",
        where=f"catalog {catalog.name}",
        todo=did_you_mean(policy_id, by_id, otherwise="`python -m alerts list` has them."),
    )


def find_channels(catalog: Catalog, channel_id: str | None) -> tuple[Channel, ...]:
    """The channels of a catalog's routes, or the one of this id; a CatalogError when none is."""
    found = tuple(one for one in catalog.channels if channel_id in (None, one.id))
    if not found:
        names = [channel.id for channel in catalog.channels]
        raise CatalogError(
            f"No route is called {channel_id!r}." if channel_id else "There is no route.",
            where=f"catalog {catalog.name}",
            todo=did_you_mean(
                channel_id or "", names, otherwise=f"There are: {', '.join(names) or 'none'}."
            ),
        )
    return found

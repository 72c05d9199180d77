"""Collects scenario files as pytest items, one a scenario, through the engine of `alerts test`.

Off unless the ini option `alert_scenarios` names the folder; `alert_catalog` names the catalog.
The imports are inside: a test run without scenarios pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from alerts.stage import Play, Stage

_STAGE = "speakfit-scenarios stage"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini options."""
    parser.addini("alert_scenarios", "Folder whose YAML files are alert scenarios.", default="")
    parser.addini(
        "alert_catalog",
        "Python module whose CATALOG the scenarios test.",
        default="alerts.policies",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A collector for every YAML file of the folder."""
    folder = parent.config.getini("alert_scenarios")
    if not folder or file_path.suffix not in (".yaml", ".yml"):
        return None
    if not file_path.is_relative_to(parent.config.rootpath / folder):
        return None
    collector: pytest.Collector = ScenarioFile.from_parent(parent, path=file_path)
    return collector


class ScenarioFile(pytest.File):
    """One scenario file."""

    def collect(self) -> Iterator[ScenarioItem]:
        """Its scenarios; what is wrong with the file is the error of collecting it."""
        from alerts.suite import read_suite
        from speakfit.errors import SpeakFitError

        try:
            stage = _stage(self.config)
            plays = read_suite([self.path], stage)
        except SpeakFitError as error:
            raise self.CollectError(str(error)) from error
        for play in plays:
            yield ScenarioItem.from_parent(self, name=play.scenario.name, play=play, stage=stage)


class ScenarioItem(pytest.Item):
    """One scenario."""

    def __init__(self, *, play: Play, stage: Stage, **given: Any) -> None:
        super().__init__(**given)
        self._play = play
        self._stage = stage

    def runtest(self) -> None:
        """Run it; an AssertionError explains what did not come true."""
        from alerts.trial import run

        run(self._play, self._stage).check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The explanation alone: a traceback through our code tells a scenario's author nothing."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the scenario stands."""
        return self.path, self._play.scenario.line - 1, self.name


def _stage(config: pytest.Config) -> Stage:
    """The catalog, compiled once a test run."""
    from alerts.catalog import load_catalog
    from alerts.stage import Stage

    found: Stage | None = getattr(config, _STAGE, None)
    if found is None:
        found = Stage.of(load_catalog(config.getini("alert_catalog")))
        setattr(config, _STAGE, found)
    return found

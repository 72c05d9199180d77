"""Every seeded mistake is caught, and what is said about it names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from speakfit_ops.infra.check import diagnostics
from speakfit_ops.infra.estate import Estate, Size, estate
from speakfit_ops.infra.invariants import broken
from speakfit_ops.infra.plan import read_plan
from speakfit_ops.infra.terraform import find_terraform
from tests.terraform.mistakes import MISTAKES, Mistake, Stage


@pytest.fixture(scope="module")
def copy() -> Iterator[Estate]:
    terraform = find_terraform()
    if terraform is None:
        pytest.skip("no Terraform for this platform")
    with estate(terraform) as made:
        assert made.init().code == 0
        yield made


def sow(copy: Estate, mistakes: Sequence[Mistake]) -> tuple[list[Mistake], dict[Path, str]]:
    """Make the mistakes that do not stand in each other's way, and keep what the files were."""
    before: dict[Path, str] = {}
    sown = []
    for mistake in mistakes:
        file = copy.folder / mistake.file
        text = file.read_text(encoding="utf-8")
        if file not in before:
            before[file] = text
            assert text.count(mistake.old) == 1, f"{mistake.name}: {text.count(mistake.old)} places"
        if text.count(mistake.old) == 1:
            file.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
            sown.append(mistake)
    return sown, before


def told(copy: Estate, mistakes: Sequence[Mistake]) -> list[str]:
    """What is said once these mistakes are made, all of one stage."""
    _, before = sow(copy, mistakes)
    try:
        stage = mistakes[0].stage
        if stage is Stage.VALIDATE:
            return [found.what for found in diagnostics(copy.run("validate", "-json"))]
        done = copy.plan(Size.PRODUCTION)
        if stage is Stage.PLAN:
            return [found.what for found in diagnostics(done)]
        assert done.code == 0, diagnostics(done)
        return [words for _, words in broken(read_plan(copy.shown(Size.PRODUCTION)))]
    finally:
        for file, text in before.items():
            file.write_text(text, encoding="utf-8")


def missed(mistakes: Sequence[Mistake], words: Sequence[str]) -> list[str]:
    """Names of the mistakes that nothing was said about."""
    return [
        mistake.name
        for mistake in mistakes
        if not any(mistake.says in " ".join(line.split()) for line in words)
    ]


def test_there_are_mistakes_of_every_kind() -> None:
    assert len(MISTAKES) >= 60
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    assert {mistake.stage for mistake in MISTAKES} == set(Stage)


@pytest.mark.parametrize("stage", Stage)
def test_every_mistake_is_caught_and_named(copy: Estate, stage: Stage) -> None:
    # A mistake hides those behind it, so what was caught is mended and the rest sown again.
    left = [mistake for mistake in MISTAKES if mistake.stage is stage]
    while left:
        words = told(copy, left)
        still = missed(left, words)
        assert len(still) < len(left), "\n".join([*still, "", *words])
        left = [mistake for mistake in left if mistake.name in still]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_each_mistake_is_caught_alone(copy: Estate, mistake: Mistake) -> None:
    words = told(copy, [mistake])
    assert missed([mistake], words) == [], "\n".join(words)

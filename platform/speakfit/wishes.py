"""How a caller wants a recording transcribed: what the API takes and the worker follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from speakfit.fillers import FillerMethod


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """One recording's options, the same for all its chunks."""

    language: str | None = None
    """A key of speakfit.languages.LANGUAGES; None lets the model tell it."""
    prompt: str | None = None
    """Text in the style and with the names that are to be expected."""
    temperature: float | None = None
    """Of sampling; None begins at 0 and rises where the model is unsure."""
    fillers: FillerMethod = FillerMethod.TRANSCRIPT
    """Whether a second decoding listens for fillers."""

    def stored(self) -> dict[str, Any] | None:
        """As a recording's row keeps them: what differs from the defaults, None where nothing."""
        usual = asdict(NO_WISHES)
        return {name: value for name, value in asdict(self).items() if value != usual[name]} or None

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Wishes:
        """From a recording's row; what another release wrote and this one does not know is left."""
        known = {name: value for name, value in (stored or {}).items() if name in asdict(NO_WISHES)}
        if "fillers" in known:
            known["fillers"] = next(
                (method for method in FillerMethod if method == known["fillers"]),
                NO_WISHES.fillers,
            )
        return cls(**known)


NO_WISHES = Wishes()
"""Everything as it is by default."""

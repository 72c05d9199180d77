"""What an upload's address asks for beside the upload itself.

A prompt is not among it: addresses are kept in the logs of every server on the way, and a prompt
holds names.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import AfterValidator

from speakfit.fillers import FillerMethod
from speakfit.languages import LANGUAGES
from speakfit.wishes import NO_WISHES, Wishes


def _known(language: str | None) -> str | None:
    if language is not None and language not in LANGUAGES:
        raise ValueError("is no language that the models know")
    return language


async def _asked(
    fillers: Annotated[
        FillerMethod,
        Query(
            description="`verbatim-pass` decodes a second time to find fillers, which Whisper "
            "leaves out; it costs about half as much again."
        ),
    ] = NO_WISHES.fillers,
    language: Annotated[
        str | None,
        Query(
            description="ISO 639-1; left out, the model tells it. A model that knows only "
            "English hears English.",
            json_schema_extra={"enum": sorted(LANGUAGES)},
        ),
        AfterValidator(_known),
    ] = None,
) -> Wishes:
    return Wishes(fillers=fillers, language=language)


Asked = Annotated[Wishes, Depends(_asked)]
"""For a route that takes an upload."""

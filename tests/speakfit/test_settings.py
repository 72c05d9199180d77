"""Settings from the environment: what is understood, and what is said of the rest."""

from __future__ import annotations

from datetime import timedelta

import pytest

from speakfit.errors import SettingsError
from speakfit.settings import read_settings


@pytest.mark.parametrize("text", ["5400", "5400.0", "PT1H30M", "01:30:00"])
def test_a_length_of_time_is_seconds_or_iso_8601(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("MAX_RECORDING_DURATION", text)
    assert read_settings().max_recording_duration == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("WHISPER_IDLE_LIMIT", "-5", "must not be negative"),
        ("CLIENT_TIMEOUT", "soon", "must be a length of time: seconds (90), or ISO 8601 (PT15M)"),
        ("CLIENT_TIMEOUT", "inf", "must be a length of time: seconds (90), or ISO 8601 (PT15M)"),
        ("API_REPLICAS", "none", "Input should be a valid integer"),
    ],
)
def test_a_wrong_variable_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, reason: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert f"cannot be read: {name}: {reason}" in caught.value.what

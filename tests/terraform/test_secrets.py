"""Passwords pass through Terraform and stay nowhere, but for the one that the provider keeps."""

from __future__ import annotations

import json
from typing import Any

from speakfit_ops.infra.estate import Size
from tests.terraform.conftest import Applied

KEPT_BY_THE_PROVIDER = ("module.redis.google_redis_instance.this", "auth_string")
"""Memorystore makes it, and hashicorp/google has no way to leave it out of the state."""


def texts(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in texts(item)]


def test_no_secret_stays_in_plan_output_or_state(applied: Applied) -> None:
    folder = applied.estate.folder
    # The passwords of every run, and each whole address and certificate that was written.
    secrets = [text for text in set(applied.estate.secrets) if "CERTIFICATE" not in text]
    assert any(text.startswith("postgresql+psycopg://speakfit:") for text in secrets)
    assert any(text.startswith("rediss://:") for text in secrets)
    state = json.loads((folder / "terraform.tfstate").read_text(encoding="utf-8"))
    [redis] = [found for found in state["resources"] if found["type"] == "google_redis_instance"]
    kept = redis["instances"][0]["attributes"].pop(KEPT_BY_THE_PROVIDER[1])
    passwords = [text for text in secrets if "made-up-cert" not in text]
    assert len(passwords) >= 5
    assert kept in passwords
    for where, text in {
        "state": "\n".join(texts(state)),
        "plan": json.dumps(applied.plan),
        "output": applied.seen,
        "plan file": (folder / "scale.plan").read_bytes().decode("latin-1"),
    }.items():
        assert [secret for secret in passwords if secret in text] == [], where


def test_the_address_in_the_state_is_marked_so_that_no_output_shows_it(applied: Applied) -> None:
    [redis] = [
        change
        for change in applied.plan["resource_changes"]
        if change["address"] == KEPT_BY_THE_PROVIDER[0]
    ]
    done = applied.estate.run("state", "show", "-no-color", KEPT_BY_THE_PROVIDER[0])
    assert redis["change"]["after_unknown"][KEPT_BY_THE_PROVIDER[1]] is True
    assert f"{KEPT_BY_THE_PROVIDER[1]} " in done.out
    assert "(sensitive value)" in done.out


def test_a_second_plan_after_the_apply_is_empty(applied: Applied) -> None:
    done = applied.estate.plan(Size.SCALE, "-detailed-exitcode")
    assert done.code == 0, done.text[-2000:]

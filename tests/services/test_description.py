"""The OpenAPI document tells the truth: every answer, and examples that fit their schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import redis

from services.api.callers import is_open
from services.api.main import every_route
from services.api.problems import is_openai
from tests.conftest import free_port, serving_api

PROBLEM = "application/problem+json"
FROM_ANY_ROUTE = {"400", "408", "500", "503", "504"}
FROM_CLOSED_ROUTES = {"401", "403", "429"}


def test_every_answer_of_every_route_is_described(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    for route in every_route():
        for method in route.methods or ():
            operation = document["paths"][route.path][method.lower()]
            answers = operation["responses"]
            assert answers.keys() >= FROM_ANY_ROUTE, route.path
            assert (answers.keys() >= FROM_CLOSED_ROUTES) is not is_open(route), route.path
            assert (operation.get("security") == []) is is_open(route)
            if "{" in route.path:
                assert "404" in answers, route.path
            for status, answer in answers.items():
                assert "X-Request-Id" in answer["headers"]
                if status[0] in "45" and not is_open(route):
                    problem = "application/json" if is_openai(route.path) else PROBLEM
                    assert list(answer["content"]) == [problem], route.path
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_the_examples_fit_their_schemas(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    told = 0
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            jsonschema.validate(example, {**schema, "components": document["components"]})
            told += 1
            assert set(example) == set(schema["properties"]), name
    assert told >= 3


def test_a_problem_is_what_the_document_says(api: httpx.Client) -> None:
    schema: dict[str, Any] = api.get("/openapi.json").json()["components"]["schemas"]["Problem"]
    jsonschema.validate(api.get("/v1/recordings/none").json(), schema)


def test_without_redis_the_api_stays_in_rotation_and_says_so(
    environment: dict[str, str], broker: redis.Redis, tmp_path: Path
) -> None:
    alone = {**environment, "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    with serving_api(alone, tmp_path / "api.log") as api:
        answer = api.get("/readyz")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["ready"], told["degraded"]) == (True, ["redis"])
        assert told["checks"]["redis"]["ok"] is False
        assert api.get("/v1/recordings/none").status_code == 404


@pytest.mark.slow
def test_requests_made_from_the_document_meet_no_surprise(
    environment: dict[str, str], redis_url: str, database_url: str, tmp_path: Path
) -> None:
    free = {**environment, "RATE_LIMIT_REQUESTS": "0", "MAX_QUEUE_CHUNKS": "1000000"}
    with serving_api(free, tmp_path / "api.log") as api:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "run"),
                f"{api.base_url}/openapi.json",
                *("--header", f"Authorization: {api.headers['authorization']}"),
                *("--checks", "not_a_server_error,status_code_conformance"),
                *("--checks", "content_type_conformance,response_schema_conformance"),
                *("--max-examples", "100", "--seed", "7", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

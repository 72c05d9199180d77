"""A loopback endpoint that speaks as much of Google's REST as a release and its secrets need.

It keeps plain JSON and knows nothing of our code or of the client libraries, so both are put to
the test: paths, masks, etags and enumerations are those that the libraries send. Each write can be
lost on its way or its answer on the way back.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
PROJECT, REGION, ENVIRONMENT = "speakfit-test", "us-central1", "production"
LOCATION = f"projects/{PROJECT}/locations/{REGION}"
SERVICE = f"{LOCATION}/services/speakfit-{ENVIRONMENT}-api"
JOB = f"{LOCATION}/jobs/speakfit-{ENVIRONMENT}-migrate"
GROUP = f"speakfit-{ENVIRONMENT}-gpu-worker"
POOL = f"{LOCATION}/workerPools/{GROUP}"
FIRST = f"speakfit-{ENVIRONMENT}-api-00001-abc"
OLD_IMAGE = "us-docker.pkg.dev/speakfit-test/speakfit/api@sha256:" + "0" * 64
SUCCEEDED, FAILED = "CONDITION_SUCCEEDED", "CONDITION_FAILED"


PREFIX = f"speakfit-{ENVIRONMENT}"
OLD_PASSWORD = "oldpasswordoldpasswordoldpassword"


def _accessors(name: str) -> Json:
    both = name.endswith(("-url", "-ca")) and not name.endswith("-replica-url")
    services = ["api", "worker"] if both else ["api"]
    return {
        "role": "roles/secretmanager.secretAccessor",
        "members": [
            f"serviceAccount:{PREFIX}-{service}@{PROJECT}.iam.gserviceaccount.com"
            for service in services
        ],
    }


class Loss(Enum):
    """What happens to a write that is to be lost."""

    REQUEST = "it never arrives"
    ANSWER = "it is carried out, and nobody hears of it"


class RefusedError(Exception):
    def __init__(self, status: int, word: str, message: str) -> None:
        super().__init__(message)
        self.body = {"error": {"code": status, "status": word, "message": message}}
        self.status = status


@dataclass(kw_only=True)
class CloudEndpoint:
    """The state of one project, and what may go wrong in it."""

    url: str = ""
    service: Json = field(default_factory=dict)
    revisions: dict[str, Json] = field(default_factory=dict)
    job: Json = field(default_factory=dict)
    executions: list[Json] = field(default_factory=list)
    templates: dict[str, Json] = field(default_factory=dict)
    group: Json = field(default_factory=dict)
    pool: Json = field(default_factory=dict)
    """A worker pool in place of the group; none unless `use_pool` makes one."""
    pool_revisions: dict[str, Json] = field(default_factory=dict)
    group_errors: list[Json] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    """What was asked to change, whether it arrived or not."""
    lose: dict[int, Loss] = field(default_factory=dict)
    """By the number of the write, from 0."""
    arrived: Callable[[str], None] = lambda _write: None
    """Is told of each write before it is carried out."""
    candidate_url: str = "http://127.0.0.1:9"
    not_ready: dict[str, str] = field(default_factory=dict)
    """Images whose revisions never become ready, and why."""
    migration_fails: str = ""
    workers_stuck: bool = False
    forbidden: bool = False
    secrets: dict[str, list[str]] = field(default_factory=dict)
    """Values of all versions, by the secret's name."""
    disabled: set[tuple[str, int]] = field(default_factory=set)
    policies: dict[str, Json] = field(default_factory=dict)
    passwords: list[str] = field(default_factory=list)
    """What the database's user was given."""
    sql_fails: Json = field(default_factory=dict)

    def traffic(self) -> dict[str, int]:
        """Percent by revision's short name, as it is served."""
        found: dict[str, int] = {}
        for one in self.service["trafficStatuses"]:
            if one.get("percent"):
                found[one["revision"]] = found.get(one["revision"], 0) + one["percent"]
        return found

    # What Terraform leaves behind

    def build(self) -> None:
        """A service with one revision, a migration job, and two workers; nothing else is left."""
        self.revisions, self.executions, self.writes = {}, [], []
        self.disabled, self.passwords, self.pool = set(), [], {}
        self.secrets = {
            f"{PREFIX}-database-url": [
                f"postgresql+psycopg://speakfit:{OLD_PASSWORD}@10.0.0.3:5432/speakfit"
                "?sslmode=verify-ca"
            ],
            f"{PREFIX}-redis-url": ["rediss://:averylongauthstring@10.0.0.4:6378/0"],
            f"{PREFIX}-database-ca": ["-----BEGIN CERTIFICATE-----"],
            f"{PREFIX}-redis-ca": ["-----BEGIN CERTIFICATE-----"],
            f"{PREFIX}-elevenlabs-api-key": [],
            f"{PREFIX}-google-oauth-client-id": ["1-a.apps.googleusercontent.com"],
            f"{PREFIX}-google-oauth-client-secret": ["GOCSPX-abcdefghij"],
        }
        self.policies = {name: {"bindings": [_accessors(name)]} for name in self.secrets}
        self.service = {
            "name": SERVICE,
            "generation": "1",
            "observedGeneration": "1",
            "etag": '"1"',
            "uri": "https://speakfit.test",
            "ingress": "INGRESS_TRAFFIC_ALL",
            "template": {
                "containers": [
                    {
                        "image": OLD_IMAGE,
                        "ports": [{"containerPort": 8080}],
                        "startupProbe": {"httpGet": {"path": "/readyz", "port": 8080}},
                        "env": [
                            {"name": "SPEAKFIT_LOCATION", "value": REGION},
                            {
                                "name": "DATABASE_URL",
                                "valueSource": {
                                    "secretKeyRef": {"secret": "database-url", "version": "latest"}
                                },
                            },
                        ],
                    }
                ]
            },
            "traffic": [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}],
            "terminalCondition": {"type": "Ready", "state": SUCCEEDED},
        }
        self._make_revision(FIRST)
        self.service["latestReadyRevision"] = f"{SERVICE}/revisions/{FIRST}"
        self._serve()
        self.job = {
            "name": JOB,
            "generation": "1",
            "observedGeneration": "1",
            "etag": '"1"',
            "template": {"template": {"containers": [{"image": OLD_IMAGE}]}},
        }
        old = f"{GROUP}-00001"
        self.templates = {
            old: {
                "name": old,
                "creationTimestamp": "2026-01-01T00:00:00.000-08:00",
                "properties": {
                    "machineType": "n1-standard-4",
                    "metadata": {
                        "items": [
                            {"key": "speakfit-image", "value": "worker@sha256:" + "0" * 64},
                            {"key": "startup-script", "value": "#!/bin/sh"},
                        ]
                    },
                },
            }
        }
        self.group = {
            "name": GROUP,
            "targetSize": 2,
            "instanceTemplate": self._template_url(old),
            "versions": [{"instanceTemplate": self._template_url(old)}],
            "distributionPolicy": {"zones": [{"zone": "a"}, {"zone": "b"}, {"zone": "c"}]},
            "status": {"isStable": True, "versionTarget": {"isReached": True}},
        }

    def use_pool(self) -> None:
        """Let Cloud Run run the workers."""
        first = f"{GROUP}-00001-xyz"
        self.group = {}
        self.pool_revisions = {first: {"containers": [{"image": "worker@sha256:" + "0" * 64}]}}
        self.pool = {
            "name": POOL,
            "generation": "1",
            "observedGeneration": "1",
            "etag": '"1"',
            "scaling": {"manualInstanceCount": 2},
            "template": {"containers": [{"image": "worker@sha256:" + "0" * 64}]},
            "latestReadyRevision": f"{POOL}/revisions/{first}",
            "instanceSplitStatuses": [
                {"type": "INSTANCE_SPLIT_ALLOCATION_TYPE_LATEST", "percent": 100}
            ],
        }

    def use_replica(self) -> None:
        """Let there be a replica of the database, as at the largest size."""
        name = f"{PREFIX}-database-replica-url"
        (primary,) = self.secrets[f"{PREFIX}-database-url"]
        self.secrets[name] = [primary.replace("10.0.0.3", "10.0.0.5")]
        self.policies[name] = {"bindings": [_accessors(name)]}
        given = {
            "name": "DATABASE_REPLICA_URL",
            "valueSource": {"secretKeyRef": {"secret": name, "version": "latest"}},
        }
        self.service["template"]["containers"][0]["env"].append(given)
        self.revisions[FIRST]["containers"][0]["env"].append(given)

    def get_pool(self, _body: Json, _query: Json) -> Json:
        if not self.pool:
            raise RefusedError(404, "NOT_FOUND", "Worker pool not found.")
        answer = copy.deepcopy(self.pool)
        self.pool["observedGeneration"] = self.pool["generation"]
        return answer

    def patch_pool(self, body: Json, query: Json) -> Json:
        mask = query["updateMask"][0].split(",")
        self.pool["generation"] = str(int(self.pool["generation"]) + 1)
        if "template" in mask:
            self.pool["template"] = body["template"]
            self.pool_revisions[body["template"]["revision"]] = body["template"]
        self.pool["instanceSplitStatuses"] = body["instanceSplits"]
        return self._operation({}, "WorkerPool")

    def get_pool_revision(self, _body: Json, _query: Json, name: str) -> Json:
        if name not in self.pool_revisions:
            raise RefusedError(404, "NOT_FOUND", f"Revision {name} not found.")
        return self.pool_revisions[name]

    @staticmethod
    def _template_url(name: str) -> str:
        return f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/instanceTemplates/{name}"

    # Cloud Run

    def _make_revision(self, name: str) -> None:
        template = copy.deepcopy(self.service["template"])
        template.pop("revision", None)
        why = self.not_ready.get(template["containers"][0]["image"], "")
        self.revisions[name] = {
            **template,
            "name": f"{SERVICE}/revisions/{name}",
            "conditions": [
                {"type": "Ready", "state": FAILED if why else SUCCEEDED, "message": why}
            ],
        }

    def _serve(self) -> None:
        latest = self.service["latestReadyRevision"].rsplit("/", 1)[1]
        self.service["trafficStatuses"] = [
            {
                **({"percent": one["percent"]} if one.get("percent") else {}),
                "revision": one.get("revision") or latest,
                **({"tag": one["tag"], "uri": self.candidate_url} if one.get("tag") else {}),
            }
            for one in self.service["traffic"]
        ]

    def get_service(self, _body: Json, _query: Json) -> Json:
        answer = copy.deepcopy(self.service)
        # It settles after it was looked at once.
        self.service["observedGeneration"] = self.service["generation"]
        return answer

    def patch_service(self, body: Json, query: Json) -> Json:
        if body.get("etag") != self.service["etag"]:
            raise RefusedError(409, "ABORTED", "Conflict for resource: version was changed.")
        mask = query["updateMask"][0].split(",")
        for path in mask:
            self.service[path] = body.get(path, {})
        self.service["generation"] = str(int(self.service["generation"]) + 1)
        self.service["etag"] = f'"{self.service["generation"]}"'
        if "template" in mask:
            name = body["template"]["revision"]
            if name in self.revisions:
                raise RefusedError(409, "ALREADY_EXISTS", f"Revision named {name} already exists.")
            self._make_revision(name)
            ready = not self.revisions[name]["conditions"][0]["message"]
            if ready:
                self.service["latestReadyRevision"] = f"{SERVICE}/revisions/{name}"
            self.service["terminalCondition"] = {
                "type": "Ready",
                "state": SUCCEEDED if ready else FAILED,
                "message": self.revisions[name]["conditions"][0]["message"],
            }
        self._serve()
        return self._operation({})

    def get_revision(self, _body: Json, _query: Json, name: str) -> Json:
        if name not in self.revisions:
            raise RefusedError(404, "NOT_FOUND", f"Revision {name} not found.")
        return self.revisions[name]

    @staticmethod
    def _operation(metadata: Json, kind: str = "Service") -> Json:
        return {
            "name": f"{LOCATION}/operations/1",
            "metadata": {"@type": f"type.googleapis.com/google.cloud.run.v2.{kind}", **metadata},
        }

    def get_job(self, _body: Json, _query: Json) -> Json:
        return self.job

    def patch_job(self, body: Json, _query: Json) -> Json:
        self.job["template"] = body["template"]
        return self._operation({}, "Job")

    def run_job(self, _body: Json, _query: Json) -> Json:
        name = f"{JOB}/executions/{len(self.executions)}"
        ended = (
            {
                "failedCount": 1,
                "conditions": [
                    {"type": "Completed", "state": FAILED, "message": self.migration_fails}
                ],
            }
            if self.migration_fails
            else {"succeededCount": 1, "completionTime": "2026-01-01T00:00:00Z"}
        )
        image = self.job["template"]["template"]["containers"][0]["image"]
        self.executions.append({"name": name, "annotations": {"image": image}, **ended})
        return self._operation({"name": name}, "Execution")

    def get_execution(self, _body: Json, _query: Json, number: str) -> Json:
        return self.executions[int(number)]

    # Compute

    def get_template(self, _body: Json, _query: Json, name: str) -> Json:
        if name not in self.templates:
            raise RefusedError(404, "NOT_FOUND", f"The resource {name!r} was not found")
        return self.templates[name]

    def list_templates(self, _body: Json, query: Json) -> Json:
        (text,) = query["filter"]
        pattern = text.removeprefix('name eq "').removesuffix('"')
        return {
            "items": [one for name, one in self.templates.items() if re.fullmatch(pattern, name)]
        }

    def insert_template(self, body: Json, _query: Json) -> Json:
        if body["name"] in self.templates:
            raise RefusedError(
                409, "ALREADY_EXISTS", f"The resource {body['name']!r} already exists"
            )
        self.templates[body["name"]] = {"creationTimestamp": "2026-02-01T00:00:00-08:00", **body}
        return {"name": "operation-1", "status": "DONE"}

    def get_group(self, _body: Json, _query: Json) -> Json:
        if not self.group:
            raise RefusedError(404, "NOT_FOUND", "The instance group manager was not found")
        answer = copy.deepcopy(self.group)
        if not self.workers_stuck:
            self.group["status"] = {"isStable": True, "versionTarget": {"isReached": True}}
        return answer

    def patch_group(self, body: Json, _query: Json) -> Json:
        policy = body["updatePolicy"]
        surge = policy["maxSurge"]["fixed"]
        if surge < len(self.group["distributionPolicy"]["zones"]):
            raise RefusedError(400, "INVALID_ARGUMENT", "maxSurge must be at least the zone count.")
        self.group["versions"] = body["versions"]
        self.group["updatePolicy"] = policy
        self.group["status"] = {"isStable": False, "versionTarget": {"isReached": False}}
        return {"name": "operation-2", "status": "DONE"}

    def list_errors(self, _body: Json, _query: Json) -> Json:
        return {"items": self.group_errors}

    # Secret Manager and Cloud SQL

    def get_secret(self, _body: Json, _query: Json, name: str) -> Json:
        if name not in self.secrets:
            raise RefusedError(404, "NOT_FOUND", f"Secret [{name}] not found.")
        return {"name": f"projects/{PROJECT}/secrets/{name}"}

    def list_versions(self, _body: Json, query: Json, name: str) -> Json:
        assert query["filter"] == ["state:ENABLED"]
        return {
            "versions": [
                {
                    "name": f"projects/{PROJECT}/secrets/{name}/versions/{number}",
                    "state": "ENABLED",
                    "createTime": "2026-01-01T00:00:00Z",
                }
                for number in self.enabled(name)
            ]
        }

    def enabled(self, name: str) -> list[int]:
        """Numbers of the versions that can be read."""
        return [
            number
            for number in range(1, len(self.secrets[name]) + 1)
            if (name, number) not in self.disabled
        ]

    def add_version(self, body: Json, _query: Json, name: str) -> Json:
        self.secrets[name].append(base64.b64decode(body["payload"]["data"]).decode())
        number = len(self.secrets[name])
        return {"name": f"projects/{PROJECT}/secrets/{name}/versions/{number}"}

    def access_version(self, _body: Json, _query: Json, name: str, number: str) -> Json:
        value = self.secrets[name][int(number) - 1]
        return {
            "name": f"projects/{PROJECT}/secrets/{name}/versions/{number}",
            "payload": {"data": base64.b64encode(value.encode()).decode()},
        }

    def disable_version(self, _body: Json, _query: Json, name: str, number: str) -> Json:
        self.disabled.add((name, int(number)))
        return {"name": f"projects/{PROJECT}/secrets/{name}/versions/{number}"}

    def get_policy(self, _body: Json, _query: Json, name: str) -> Json:
        return self.policies.get(name, {})

    def put_user(self, body: Json, query: Json) -> Json:
        assert query["name"] == ["speakfit"]
        self.passwords.append(body["password"])
        return {"name": "sql-1", "status": "RUNNING"}

    def get_operation(self, _body: Json, _query: Json) -> Json:
        if self.sql_fails:
            return {"name": "sql-1", "status": "DONE", "error": {"errors": [self.sql_fails]}}
        return {"name": "sql-1", "status": "DONE"}

    def routes(self) -> list[tuple[str, str, Callable[..., Json]]]:
        """Method, path, and what answers it."""
        compute = f"compute/v1/projects/{PROJECT}"
        secret = f"v1/projects/{PROJECT}/secrets/([^/:]+)"
        sql = f"sql/v1beta4/projects/{PROJECT}"
        group = f"{compute}/regions/{REGION}/instanceGroupManagers/{GROUP}"
        return [
            ("GET", f"v2/{SERVICE}", self.get_service),
            ("PATCH", f"v2/{SERVICE}", self.patch_service),
            ("GET", f"v2/{SERVICE}/revisions/([^/]+)", self.get_revision),
            ("GET", f"v2/{JOB}", self.get_job),
            ("PATCH", f"v2/{JOB}", self.patch_job),
            ("POST", f"v2/{JOB}:run", self.run_job),
            ("GET", f"v2/{JOB}/executions/([^/]+)", self.get_execution),
            ("GET", f"{compute}/global/instanceTemplates/([^/]+)", self.get_template),
            ("GET", f"{compute}/global/instanceTemplates", self.list_templates),
            ("POST", f"{compute}/global/instanceTemplates", self.insert_template),
            ("GET", group, self.get_group),
            ("GET", f"v2/{POOL}", self.get_pool),
            ("PATCH", f"v2/{POOL}", self.patch_pool),
            ("GET", f"v2/{POOL}/revisions/([^/]+)", self.get_pool_revision),
            ("PATCH", group, self.patch_group),
            ("GET", f"{group}/listErrors", self.list_errors),
            ("GET", f"{secret}", self.get_secret),
            ("GET", f"{secret}/versions", self.list_versions),
            ("POST", f"{secret}:addVersion", self.add_version),
            ("GET", f"{secret}/versions/(\\d+):access", self.access_version),
            ("POST", f"{secret}/versions/(\\d+):disable", self.disable_version),
            ("GET", f"{secret}:getIamPolicy", self.get_policy),
            ("PUT", f"{sql}/instances/{PREFIX}-postgres/users", self.put_user),
            ("GET", f"{sql}/operations/sql-1", self.get_operation),
        ]


@contextmanager
def serving(endpoint: CloudEndpoint) -> Iterator[CloudEndpoint]:
    """Serve it on a free port until the block ends."""
    lock = threading.Lock()
    routes = endpoint.routes()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One packet an answer: headers alone would wait for the client's delayed acknowledgement.
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            address = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            loss = None
            if self.command != "GET":
                with lock:
                    write = f"{self.command} {address.path}"
                    loss = endpoint.lose.get(len(endpoint.writes))
                    endpoint.writes.append(write)
                endpoint.arrived(write)
            if loss is Loss.REQUEST:
                self.close_connection = True
                return
            status, answer = 404, {"error": {"code": 404, "message": f"no such call: {self.path}"}}
            for method, path, call in routes:
                found = re.fullmatch(f"/{path}", address.path)
                if method == self.command and found:
                    try:
                        if endpoint.forbidden:
                            raise RefusedError(403, "PERMISSION_DENIED", "Permission denied.")
                        with lock:
                            answer = call(body, parse_qs(address.query), *found.groups())
                        status = 200
                    except RefusedError as refused:
                        status, answer = refused.status, refused.body
                    break
            if loss is Loss.ANSWER:
                self.close_connection = True
                return
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.wfile.flush()

        do_GET = do_PATCH = do_POST = do_PUT = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()

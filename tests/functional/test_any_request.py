"""Whatever is sent, the answer is of the known shape and never a 500."""

from __future__ import annotations

import json
import re
import socket
import urllib.parse
import uuid
from typing import Any

import httpx
import hypothesis
from hypothesis import strategies as st

from funcplat.api import app
from tests.functional.platform import ADMIN, ApiTest, check_shape

SETTINGS = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        "\0",
        "ü" * 256,
        "null",
        "true",
        "-1",
        "1e999",
        "9" * 400,
        "in:",
        "has:%",
        "{}",
        "[]",
        "'",
        "a,b",
        "\ud800",
    ]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
FIELDS = st.sampled_from(
    [
        "name",
        "description",
        "runtime_id",
        "entry",
        "cpu",
        "memory_size",
        "memory",
        "timeout",
        "code",
        "environment",
        "image",
        "is_public",
        "trusted",
        "orchestrator",
        "count",
        "function_id",
        "function_alias",
        "function_version",
        "routes",
        "weight",
        "version_number",
        "sync",
        "input",
        "status",
        "pattern",
        "time_zone",
        "first_execution_time",
        "next_execution_time",
        "function_input",
        "missed_ticks",
        "signed",
        "secret",
        "rate_limit",
        "rate_burst",
        "overlap",
        "id",
        "x",
    ]
)
QUERY = st.sampled_from(
    [
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "all_projects",
        "project_id",
        "function_id",
        "status",
        "description",
        "name",
        "download",
        "offset",
        "wait",
        "function_version",
        "x",
    ]
)
KNOWN = st.sampled_from(
    [
        "{function}",
        "{runtime}",
        "{execution}",
        "{alias}",
        "{job}",
        "{webhook}",
        "{unknown}",
        "abc",
        "%00",
        "%ff",
        "..",
        "{}",
    ]
)
VERSIONS = ("0", "1", "2", "-1", "x")
PATHS = st.sampled_from(
    [
        re.sub(r"{\w+}", "ID", route.path.replace("{version_number}", version))
        for route in app.ROUTES
        for version in (VERSIONS if "{version_number}" in route.path else ("",))
    ]
    + ["/v1/", "//v1//ID"]
)


def written(value: Any) -> bytes:
    """JSON as some clients write it: NaN, lone surrogates and all."""
    return json.dumps(value).encode()


class AnyRequestTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        function = self.create("def main(*a, **k): pass")
        self.ok(201, self.api.post(f"/v1/functions/{function['id']}/versions", {}))
        self.ok(201, self.api.post("/v1/aliases", {"name": "prod", "function_id": function["id"]}))
        self.ids = {
            "function": function["id"],
            "runtime": function["runtime_id"],
            "execution": self.execute(function)["id"],
            "alias": "prod",
            "job": self.made("jobs", function, pattern="0 0 1 1 *"),
            "webhook": self.made("webhooks", function, signed=True),
            "unknown": str(uuid.uuid4()),
        }

    def made(self, kind: str, function: dict[str, Any], **fields: Any) -> str:
        body = {"function_id": function["id"], **fields}
        return str(self.ok(201, self.api.post(f"/v1/{kind}", body))["id"])

    def path(self, path: str, known: str) -> str:
        for name, value in self.ids.items():
            known = known.replace(f"{{{name}}}", value)
        return path.replace("ID", urllib.parse.quote(known, safe="%"))

    def test_any_query(self) -> None:
        @SETTINGS
        @hypothesis.given(PATHS, KNOWN, st.dictionaries(QUERY, TEXT, max_size=3), st.booleans())
        def ask(path: str, known: str, query: dict[str, str], as_admin: bool) -> None:
            query.pop("wait", None)
            encoded = urllib.parse.urlencode(query, errors="surrogatepass")
            (self.admin if as_admin else self.api)("GET", f"{self.path(path, known)}?{encoded}")

        ask()

    def test_any_json(self) -> None:
        @SETTINGS
        @hypothesis.given(
            st.sampled_from(["POST", "PUT"]), PATHS, KNOWN, JSON | st.dictionaries(FIELDS, JSON, max_size=5)
        )
        def send(method: str, path: str, known: str, body: Any) -> None:
            headers = {"Content-Type": "application/json"}
            self.admin(method, self.path(path, known), content=written(body), headers=headers)

        send()

    def test_any_execution(self) -> None:
        @SETTINGS
        @hypothesis.given(JSON, JSON | TEXT)
        def call(description: Any, value: Any) -> None:
            body = {"function_id": self.ids["function"], "description": description, "input": value}
            self.api.post("/v1/executions", content=written(body))
            text = {"function_id": self.ids["function"], "input": json.dumps(value)}
            self.api.post("/v1/executions", content=written(text))

        call()

    def test_any_alias(self) -> None:
        routes = st.lists(st.fixed_dictionaries({"function_version": JSON, "weight": JSON}), max_size=3)

        @SETTINGS
        @hypothesis.given(JSON | TEXT, JSON, JSON | routes)
        def lead(name: Any, version: Any, shares: Any) -> None:
            body = {"function_version": version, "routes": shares}
            self.api.put("/v1/aliases/prod", content=written(body))
            self.api.post("/v1/executions", content=written({"function_alias": name}))
            body |= {"name": name, "function_id": self.ids["function"]}
            if self.api.post("/v1/aliases", content=written(body)).status_code == 201:
                path = f"/v1/aliases/{urllib.parse.quote(str(name), safe='')}"
                self.ok(200, self.api.get(path))
                self.ok(204, self.api.delete(path))

        lead()

    def test_any_form(self) -> None:
        @SETTINGS
        @hypothesis.given(
            st.sampled_from(["POST", "PUT"]), st.dictionaries(FIELDS, TEXT, max_size=5), st.booleans()
        )
        def send(method: str, form: dict[str, str], multipart: bool) -> None:
            path = "/v1/functions" if method == "POST" else f"/v1/functions/{self.ids['function']}"
            fields = {name: value.encode("utf-8", "surrogatepass") for name, value in form.items()}
            if multipart:
                files: Any = [(name, (None, value)) for name, value in fields.items()]
                self.api(method, path, files=[*files, ("package", ("p", b"no zip"))])
            else:
                headers = {"Content-Type": "application/x-www-form-urlencoded"}
                self.api(method, path, content=urllib.parse.urlencode(fields).encode(), headers=headers)

        send()

    def test_any_bytes(self) -> None:
        kinds = st.sampled_from(
            [
                "application/json",
                "multipart/form-data; boundary=b",
                "multipart/form-data",
                "text/plain",
                "\x7f",
                "a/b;c",
                "",
            ]
        )

        @SETTINGS
        @hypothesis.given(PATHS, KNOWN, kinds, st.binary(max_size=60) | st.just(b"--b\r\n\r\n--b--"))
        def send(path: str, known: str, kind: str, body: bytes) -> None:
            self.api("POST", self.path(path, known), content=body, headers={"Content-Type": kind})

        send()

    def test_any_header(self) -> None:
        @SETTINGS
        @hypothesis.given(
            st.sampled_from(
                ["Accept", "Content-Type", "X-Auth-Token", "Range", "Cookie", "Host", "Expect", "If-Match"]
            ),
            st.binary(max_size=30).map(lambda text: text.translate(None, b"\r\n\0")),
        )
        def send(name: str, value: bytes) -> None:
            headers = {"X-Auth-Token": ADMIN.encode(), name: value.strip()}
            try:
                answer = httpx.get(f"{self.api.endpoint}/v1/functions", headers=headers)
            except httpx.TransportError:
                return  # not HTTP, and the client or the server says so
            check_shape(answer)

        send()

    def test_paths_of_any_length(self) -> None:
        for path in (
            "/v1/functions/" + "x" * 10_000,
            "/v1/" + "y/" * 5_000,
            "/v1/functions?marker=" + "x" * 20_000,
        ):
            self.assertIn(self.api("GET", path).status_code, (400, 404, 414))

    def test_a_client_that_goes_away_amid_its_request_hurts_nobody(self) -> None:
        address = urllib.parse.urlsplit(self.api.endpoint)
        form = b"Content-Type: multipart/form-data; boundary=b\r\n"
        for head in (b"POST /v1/executions HTTP/1.1\r\n", b"POST /v1/functions HTTP/1.1\r\n" + form):
            with socket.create_connection((address.hostname, address.port)) as connection:
                connection.sendall(
                    head + f"Host: x\r\nContent-Length: 100\r\nX-Auth-Token: {ADMIN}\r\n\r\n--b".encode()
                )
        self.ok(200, self.api.get("/v1/functions"))

"""A small server that speaks enough of /v1 for the command line, records requests and runs functions.

Functions run in a process of their own, by the code that workers call them with; nothing is isolated.
"""

import collections
import dataclasses
import email.parser
import email.policy
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import uuid
import zipfile

import fixtures

from funcplat.cmd import main

NOW = "2026-01-02T03:04:05Z"
MARK = "--- report ---"
RUN = f"""
import json, os, sys, traceback
from funcplat.worker import entry
folder, name, text = sys.argv[1:]
sys.path.insert(0, folder)
try:
    function = entry.find(name, os.listdir(folder))
    report = "success", function.call(*function.arguments(json.loads(text), {{"os_session": None}}))
except Exception as error:
    traceback.print_exc(file=sys.stdout)
    report = "failed", entry.explain(error, False)[0]
sys.stdout.write("{MARK}" + json.dumps(report))
"""


@dataclasses.dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, bytes]:
        """The parts of a multipart or urlencoded body."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            pairs = urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True)
            return {name: value.encode() for name, value in pairs}
        parser = email.parser.BytesParser(policy=email.policy.HTTP)
        message = parser.parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.body)
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.iter_parts()
        }

    @property
    def text_fields(self) -> dict[str, str]:
        return {name: value.decode() for name, value in self.form.items() if name != "package"}


@dataclasses.dataclass
class Answer:
    status: int
    body: object = None  # bytes go out as they are, all else as JSON
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def fault(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"faultstring": message, "code": code, "message": message, "request_id": "req-1"})


class Server(fixtures.Fixture):
    """Listens on a port of its own; `requests` is what came in, `prepare` says what goes out instead."""

    def _setUp(self):
        self.requests: list[Request] = []
        self.runtimes: dict[str, dict] = {}
        self.functions: dict[str, dict] = {}
        self.packages: dict[str, bytes] = {}
        self.environments: dict[str, dict[str, str]] = {}
        self.versions: dict[str, list[dict]] = {}
        self.aliases: dict[str, dict] = {}
        self.executions: dict[str, dict] = {}
        self.logs: dict[str, bytes] = {}
        self._prepared: dict[tuple[str, str], collections.deque] = {}
        handler = type("Handler", (_Handler,), {"fake": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.endpoint = f"http://127.0.0.1:{server.server_port}"

    def prepare(self, method: str, path: str, *answers: Answer) -> None:
        """Give these answers to the next requests of this kind, one each."""
        self._prepared.setdefault((method, path), collections.deque()).extend(answers)

    def add_runtime(self, name: str = "python3", status: str = "available") -> str:
        runtime = {"id": str(uuid.uuid4()), "name": name, "image": name, "status": status}
        self.runtimes[runtime["id"]] = runtime
        return runtime["id"]

    def add_function(self, name: str, source: str = "def main(**kwargs):\n    return kwargs\n") -> str:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("main.py", source)
        function = self._function({"name": name, "runtime_id": self.add_runtime()}, data.getvalue())
        return function["id"]

    def serve(self, request: Request) -> Answer:
        self.requests.append(request)
        prepared = self._prepared.get((request.method, request.path))
        if prepared:
            return prepared.popleft()
        for method, pattern, action in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method:
                return action(self, request, *found.groups())
        return fault(404, "not_found", f"no route {request.method} {request.path}")

    # -- what the routes do --

    def discover(self, request):
        return Answer(200, {"versions": [{"id": "v1.0", "status": "CURRENT", "links": []}]})

    def healthy(self, request):
        return Answer(200, {"status": "ok"})

    def listed(self, request, noun):
        return Answer(200, {noun: list(getattr(self, noun).values())})

    def shown(self, request, noun, key):
        things = getattr(self, noun)
        if key not in things:
            return fault(404, "not_found", f"{noun[:-1]} {key} not found")
        if request.query.get("download"):
            return Answer(200, self.packages[key], {"Content-Type": "application/zip"})
        if things[key].get("status") == "creating":
            things[key] |= {"status": "available"}
        return Answer(200, things[key])

    def deleted(self, request, noun, key):
        found = getattr(self, noun).pop(key, None)
        return Answer(204) if found else fault(404, "not_found", f"{noun[:-1]} {key} not found")

    def runtime_created(self, request):
        key = self.add_runtime(request.json["image"], "creating")
        self.runtimes[key] |= request.json
        return Answer(201, dict(self.runtimes[key]))

    def runtime_updated(self, request, key):
        self.runtimes[key] |= request.json
        return Answer(200, self.runtimes[key])

    def pool(self, request, key):
        return Answer(200, {"name": key, "capacity": {"total": 3, "available": 2}})

    def function_created(self, request):
        form = request.form
        fields = request.text_fields
        code = json.loads(fields["code"])
        if code["source"] == "image":
            return Answer(201, self._function(fields, b"") | {"code": code, "entry": None})
        if code["md5sum"] != hashlib.md5(form["package"]).hexdigest():
            return fault(400, "checksum_mismatch", "Package md5 mismatch.")
        return Answer(201, self._function(fields, form["package"]))

    def _function(self, fields, package):
        key = str(uuid.uuid4())
        self.packages[key] = package
        self.environments[key] = json.loads(fields.get("environment", "{}"))
        self.functions[key] = {
            "id": key,
            "name": fields["name"],
            "runtime_id": fields.get("runtime_id"),
            "entry": fields.get("entry", "main.main"),
            "code": {"source": "package", "md5sum": hashlib.md5(package).hexdigest()},
            "cpu": int(fields.get("cpu", 100)),
            "memory_size": int(fields.get("memory_size", 33554432)),
            "timeout": int(fields.get("timeout", 5)),
            "count": 0,
            "created_at": NOW,
            "updated_at": None,
        }
        return self.functions[key]

    def function_updated(self, request, key):
        fields = request.text_fields
        if "environment" in fields:
            self.environments[key] = json.loads(fields["environment"])
        known = {name: fields[name] for name in ("name", "description", "entry") if name in fields}
        numbers = {name: int(fields[name]) for name in ("cpu", "memory_size", "timeout") if name in fields}
        if "package" in request.form:
            self.packages[key] = request.form["package"]
        self.functions[key] |= known | numbers
        return Answer(200, self.functions[key])

    def accepted(self, request, key):
        return Answer(202)

    def workers(self, request, key):
        worker = {"function_id": key, "function_version": 0, "worker_name": "w-1"}
        return Answer(200, {"workers": [worker]})

    def version_created(self, request, key):
        versions = self.versions.setdefault(key, [])
        versions.append({"version_number": len(versions) + 1, "count": 0, **request.json})
        return Answer(201, versions[-1])

    def versions_listed(self, request, key):
        return Answer(200, {"function_versions": self.versions.get(key, [])})

    def version_shown(self, request, key, number):
        found = [each for each in self.versions.get(key, []) if each["version_number"] == int(number)]
        if not found:
            return fault(404, "not_found", f"version {number} not found")
        if request.query.get("download"):
            return Answer(200, self.packages[key], {"Content-Type": "application/zip"})
        return Answer(200, found[0])

    def version_deleted(self, request, key, number):
        self.versions[key] = [v for v in self.versions.get(key, []) if v["version_number"] != int(number)]
        return Answer(204)

    def alias_created(self, request):
        alias = {"function_version": 0, "routes": None, **request.json}
        self.aliases[alias["name"]] = alias
        return Answer(201, alias)

    def aliases_listed(self, request):
        return Answer(200, {"function_aliases": list(self.aliases.values())})

    def alias(self, request, path):
        name = urllib.parse.unquote(path)
        if name not in self.aliases:
            return fault(404, "not_found", f"alias {name} not found")
        if request.method == "PUT":
            self.aliases[name] |= request.json
        if request.method == "DELETE":
            del self.aliases[name]
            return Answer(204)
        return Answer(200, self.aliases[name])

    def execution_created(self, request):
        wanted = request.json
        alias = self.aliases.get(wanted.get("function_alias"), {})
        function = self.functions.get(alias.get("function_id", wanted.get("function_id")))
        if function is None:
            return fault(404, "not_found", "function not found")
        key = str(uuid.uuid4())
        status, output, log = self._run(function, wanted.get("input"))
        self.logs[key] = log.encode()
        execution = {
            "id": key,
            "function_id": function["id"],
            "sync": wanted["sync"],
            "status": status,
            "input": wanted.get("input"),
            "result": json.dumps({"output": output, "duration": 0.01}),
            "reason": {"code": "function_raised", "message": "It raised."} if status == "failed" else None,
            "created_at": NOW,
            "updated_at": NOW,
        }
        self.executions[key] = execution
        return Answer(201, execution if wanted["sync"] else execution | {"status": "running", "result": None})

    def _run(self, function, text):
        """Status, output and log of a run in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(io.BytesIO(self.packages[function["id"]])).extractall(folder)
            command = [sys.executable, "-c", RUN, folder, function["entry"], text or "null"]
            environment = {**os.environ, **self.environments[function["id"]]}
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
        log, _, report = done.stdout.rpartition(MARK)
        return *json.loads(report), log

    def log(self, request, key):
        if key not in self.logs:
            return fault(404, "not_found", f"execution {key} not found")
        content = self.logs[key][int(request.query.get("offset", 0)) :]
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Log-Complete": "true"}
        return Answer(200, content, headers)


ROUTES = [
    ("GET", r"/", Server.discover),
    ("GET", r"/healthz|/readyz", Server.healthy),
    ("GET", r"/v1/(runtimes|functions|executions)", Server.listed),
    ("GET", r"/v1/(runtimes|functions|executions)/([^/]+)", Server.shown),
    ("DELETE", r"/v1/(runtimes|functions|executions)/([^/]+)", Server.deleted),
    ("POST", r"/v1/runtimes", Server.runtime_created),
    ("PUT", r"/v1/runtimes/([^/]+)", Server.runtime_updated),
    ("GET", r"/v1/runtimes/([^/]+)/pool", Server.pool),
    ("POST", r"/v1/functions", Server.function_created),
    ("PUT", r"/v1/functions/([^/]+)", Server.function_updated),
    ("POST", r"/v1/functions/([^/]+)(?:/versions/\d+)?/(?:detach|scale_up|scale_down)", Server.accepted),
    ("POST", r"/v1/functions/([^/]+)/versions", Server.version_created),
    ("GET", r"/v1/functions/([^/]+)/versions", Server.versions_listed),
    ("GET", r"/v1/functions/([^/]+)/versions/(\d+)", Server.version_shown),
    ("DELETE", r"/v1/functions/([^/]+)/versions/(\d+)", Server.version_deleted),
    ("POST", r"/v1/aliases", Server.alias_created),
    ("GET", r"/v1/aliases", Server.aliases_listed),
    *((method, r"/v1/aliases/([^/]+)", Server.alias) for method in ("GET", "PUT", "DELETE")),
    ("GET", r"/v1/functions/([^/]+)/workers", Server.workers),
    ("POST", r"/v1/executions", Server.execution_created),
    ("GET", r"/v1/executions/([^/]+)/log", Server.log),
]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True
    fake: Server

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(urllib.parse.parse_qsl(parts.query))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.fake.serve(Request(self.command, parts.path, query, headers, body))
        self._answer(answer)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self, answer: Answer) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if answer.body is None:
            content = b""
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@dataclasses.dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class CommandLine(fixtures.Fixture):
    """Runs ``funcplat`` in this process, against one server."""

    def __init__(self, endpoint: str, *options: str) -> None:
        super().__init__()
        self._options = ("--endpoint", endpoint, *options)

    def _setUp(self):
        for name in ("FUNCPLAT_ENDPOINT", "FUNCPLAT_TOKEN"):
            self.useFixture(fixtures.EnvironmentVariable(name))

    def __call__(self, *words: str, stdin: str = "") -> Result:
        out, err = _stream(), _stream()
        with (
            fixtures.MonkeyPatch("sys.stdout", out),
            fixtures.MonkeyPatch("sys.stderr", err),
            fixtures.MonkeyPatch("sys.stdin", io.StringIO(stdin)),
        ):
            try:
                code = main.run([*self._options, *words])
            except SystemExit as leaving:
                code = leaving.code
        return Result(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)

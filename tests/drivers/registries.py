"""Registries for tests: real ones in the shapes that operators give them, and one that follows a script."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import fixtures
import httpx

from funcplat.storage.registry import manifests
from tests import services
from tests.services import base, catalog, processes

USER, PASSWORD = "ann", "secret"
# bcrypt of the password, at the least cost there is: basic authentication hashes it with every request
HTPASSWD = f"{USER}:$2b$04$xw.eCROS5nS/OkSjmHVPHuOfoQ4ZP53wp3fJMeMNmQex0mj.cTvXS\n"


class Directory(fixtures.Fixture):
    def _setUp(self) -> None:
        # short and removed late: the server may still be writing
        directory = tempfile.TemporaryDirectory(prefix="funcplat-registry-", ignore_cleanup_errors=True)
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)


class Certificate(fixtures.Fixture):
    """A certificate of 127.0.0.1 and localhost that is its own authority, by the openssl of the machine."""

    def _setUp(self) -> None:
        directory = self.useFixture(Directory()).path
        self.path, self.key = directory / "certificate.pem", directory / "key.pem"
        argv = [base.program("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=test"]
        argv += ["-newkey", "rsa:2048", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        argv += ["-keyout", str(self.key), "-out", str(self.path)]
        subprocess.run(argv, check=True, capture_output=True)

    @property
    def der(self) -> str:
        """In base64, as it stands in the PEM."""
        return "".join(line for line in self.path.read_text().splitlines() if not line.startswith("--"))

    def sign(self, data: bytes) -> bytes:
        """RSA with SHA-256."""
        argv = [base.program("openssl"), "dgst", "-sha256", "-sign", str(self.key)]
        return subprocess.run(argv, input=data, capture_output=True, check=True).stdout


class Registry(fixtures.Fixture):
    """A real registry of its own: `host` stands in names, `data` is where it keeps everything."""

    def __init__(self, **configuration: Any) -> None:
        """``configuration``: sections of its configuration beside, or in the place of, those here."""
        super().__init__()
        self._configuration = configuration

    def _setUp(self) -> None:
        if catalog.services()["registry"].missing():
            services.use("registry")  # skips with the reason, or fails where nothing may be left out
        directory = self.useFixture(Directory()).path
        self.data = directory / "data"
        port = processes.free_port()
        self.host = f"127.0.0.1:{port}"
        configuration = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            **self._configuration,
        }
        configuration["http"] = {"addr": self.host, "secret": "x", **configuration.get("http", {})}
        path = directory / "config.yml"
        path.write_text(json.dumps(configuration))  # YAML contains JSON
        self._directory = directory
        self.addCleanup(self.stop)
        self.start()

    def start(self) -> None:
        # ends with this process, whatever ends this process
        argv = [base.program("setpriv"), "--pdeathsig", "KILL", base.program("docker-registry"), "serve"]
        argv.append(str(self._directory / "config.yml"))
        environment = {"OTEL_TRACES_EXPORTER": "none"}
        self._process = processes.spawn(self._directory, "registry", argv, env=environment)
        processes.wait_ready(self._directory, "registry", self._process, self._listens)

    def _listens(self) -> bool:
        with contextlib.suppress(httpx.TransportError), httpx.Client(verify=False, trust_env=False) as client:
            return client.get(f"{self.scheme}://{self.host}/v2/").status_code in (200, 401)
        return False

    def stop(self) -> None:
        processes.stop(self._directory, "registry")
        self._process.wait()

    @property
    def scheme(self) -> str:
        return "https" if "tls" in self._configuration.get("http", {}) else "http"

    @property
    def log(self) -> str:
        return processes.log_tail(processes.log_path(self._directory, "registry"), 1_000_000)

    def collect_garbage(self) -> None:
        """Remove what nothing refers to, as an operator does."""
        argv = [base.program("docker-registry"), "garbage-collect", self._directory / "config.yml"]
        processes.run(self._directory, "garbage-collect", argv)

    def repository(self, name: str) -> pathlib.Path:
        """The directory of a repository."""
        return self.data / "docker/registry/v2/repositories" / name

    def blob(self, digest: str) -> pathlib.Path:
        """The file of a blob, by the hexadecimal part of its digest."""
        return self.data / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"

    def damage(self, digest: str) -> None:
        """Alter the last byte of a blob, and nothing of its size."""
        path = self.blob(digest)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


class BasicRegistry(Registry):
    """One that wants `USER` and `PASSWORD`."""

    def _setUp(self) -> None:
        path = self.useFixture(Directory()).path / "htpasswd"
        path.write_text(HTPASSWD)
        self._configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(path)}}
        super()._setUp()


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A request that a server of ours was sent."""

    method: str
    path: str  # without the query
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What it answers: as it is, so that it can be wrong."""

    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    pause: float = 0.0  # seconds before each byte of the body


class _Quiet(http.server.ThreadingHTTPServer):
    """Says nothing of clients that go away."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server(fixtures.Fixture):
    """An HTTP server of this process; ``answer`` says what it replies.  `seen` has the requests."""

    def __init__(self, answer: Callable[[Seen], Reply]) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections = 0

    def _setUp(self) -> None:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                owner.connections += 1
                super().setup()

            def handle_one(self) -> None:
                url = urllib.parse.urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, url.path, urllib.parse.parse_qs(url.query), headers, body)
                owner.seen.append(seen)
                self.reply(owner.answer(seen))

            def reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                with contextlib.suppress(ConnectionError):  # who asked may go away
                    for part in [reply.body] if not reply.pause else [bytes([each]) for each in reply.body]:
                        owner.ending.wait(reply.pause)
                        self.wfile.write(part)
                if int(reply.headers.get("Content-Length", len(reply.body))) != len(reply.body):
                    self.close_connection = True

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.handle_one
                raise AttributeError(name)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.ending = threading.Event()
        server = _Quiet(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{server.server_port}"
        self.url = f"http://{self.host}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.addCleanup(self.ending.set)


class TokenServer(Server):
    """Gives tokens that a real registry trusts, for the scope that is asked for, to `USER` alone."""

    identity = "an identity token"

    def __init__(self, certificate: Certificate, life: float = 300.0) -> None:
        super().__init__(self._answer)
        self._certificate = certificate
        self.life = life

    @property
    def configuration(self) -> dict[str, Any]:
        """The section ``auth`` of the registry's configuration."""
        token = {"realm": f"{self.url}/token", "service": "test", "issuer": "tests"}
        return {"token": {**token, "rootcertbundle": str(self._certificate.path)}}

    def _answer(self, seen: Seen) -> Reply:
        scopes = seen.query.get("scope", [])
        if seen.method == "POST":
            form = urllib.parse.parse_qs(seen.body.decode())
            scopes, known = form.get("scope", []), form.get("refresh_token") == [self.identity]
        else:
            given = seen.headers.get("authorization")
            if given not in (None, basic(USER, PASSWORD)):
                return Reply(401, body=b'{"details": "incorrect username or password"}')
            known = given is not None
        token = self.token(scopes if known else [])
        name = "access_token" if seen.method == "POST" else "token"  # OAuth2, and what was before it
        return Reply(body=json.dumps({name: token, "expires_in": self.life}).encode())

    def token(self, scopes: list[str]) -> str:
        access = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._certificate.der]}
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": "test",
            "nbf": now - 10,
            "iat": now,
            "exp": now + int(self.life),
            "jti": str(time.monotonic_ns()),
            "access": access,
        }
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{_base64(self._certificate.sign(signed.encode()))}"


class Client:
    """A client of a repository that is not the driver's, as a user's would be."""

    def __init__(self, place: str, **headers: str) -> None:
        """``place``: host and repository."""
        host, _, name = place.partition("/")
        self._url = httpx.URL(f"http://{host}/v2/{name}/")
        self._headers = headers

    def request(self, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        url, headers = self._url.join(path), {**self._headers, **headers}
        answer = httpx.request(method, url, content=content, headers=headers, trust_env=False, timeout=30)
        return answer.raise_for_status()

    def push_blob(self, data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
        """Its descriptor."""
        digest = digest_of(data)
        location = self.request("POST", "blobs/uploads/").headers["location"]
        self.request("PUT", f"{location}&digest={digest}", data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def push_manifest(self, tag: str, value: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Its descriptor."""
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **value}).encode()
        self.request("PUT", f"manifests/{tag}", body, **{"Content-Type": media_type})
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}

    def manifest(self, tag: str) -> dict[str, Any]:
        accept = ", ".join([*manifests.INDEXES, *manifests.MANIFESTS])
        value: dict[str, Any] = self.request("GET", f"manifests/{tag}", Accept=accept).json()
        return value


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class SearchPath(fixtures.EnvironmentVariable):
    """Programs of a directory are found before all others."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def basic(user: str, password: str) -> str:
    """The header Authorization of basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def decoded(authorization: str) -> str:
    """User and password of a header Authorization of basic authentication."""
    return base64.b64decode(authorization.removeprefix("Basic ")).decode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

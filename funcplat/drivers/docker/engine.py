"""The Docker Engine, spoken to by the SDK's low-level client; its errors are translated here."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from funcplat import errors
from funcplat.drivers.docker import deadlines, options

try:
    import docker
    import requests
    import urllib3
except ImportError as error:
    raise ImportError(f"{error}; the Docker driver needs: pip install 'funcplat[docker]'") from error

SILENCE = 60.0
"""Seconds for which the Engine may say nothing to a request without a deadline, or within a stream."""
BUILD_SILENCE = 900.0
"""The same within a build: a step that says nothing may take minutes on a machine that is busy."""
CONNECTIONS = 24

_FOREIGN = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class Refused(errors.DriverError):
    """The Docker Engine refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the Docker Engine answered {status}: {message}")
        self.status = status
        self.text = message


class _Client(docker.APIClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client, without the proxies and authorities that the environment has for other servers."""

    @property
    def trust_env(self) -> bool:
        # Else REQUESTS_CA_BUNDLE would win over the authority that is configured for the Engine.
        return False

    @trust_env.setter
    def trust_env(self, _value: bool) -> None:
        """Stay as it is: the base class sets it."""


class Engine:
    """One Docker Engine.  Thread-safe; connects when it is first used, again after the Engine's restart."""

    def __init__(self, settings: options.Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connected: docker.APIClient | None = None

    def call(
        self,
        method: str,
        path: str,
        deadline: deadlines.Deadline,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """One request of the Engine API, such as ``GET /info``: its JSON, or None where there is none.

        Values of ``query`` that are dicts are sent as JSON.
        Raises Refused, EngineFull, DriverUnavailable, DriverTimeout.
        """
        answer = self._request(method, path, deadline.remaining(), query, body)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json and answer.content else None

    def _request(
        self,
        method: str,
        path: str,
        timeout: float,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> requests.Response:
        """``more``: what else `requests` takes."""
        client = self.client()
        parameters = {
            name: json.dumps(value) if isinstance(value, dict) else value
            for name, value in (query or {}).items()
        }
        with self.translated():
            answer: requests.Response = client.request(
                method,
                f"{client.base_url}/v{client.api_version}{path}",
                params=parameters,
                json=body,
                timeout=timeout,
                **more,
            )
        if answer.status_code >= 400:
            raise _refusal(answer.status_code, _message(answer))
        return answer

    def client(self) -> docker.APIClient:
        """The SDK's client, for what is more than a request; use it within `translated`."""
        with self._lock:
            if self._connected is None:
                with self.translated():
                    self._connected = self._connect()
            return self._connected

    def _connect(self) -> docker.APIClient:
        return _Client(
            base_url=self._settings.url,
            version="auto",
            timeout=SILENCE,
            tls=_tls(self._settings.tls) if self._settings.tls else False,
            max_pool_size=CONNECTIONS,
        )

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of the SDK leave as DriverErrors."""
        try:
            yield
        except docker.errors.APIError as error:
            text = str(error.explanation or error)
            raise _refusal(error.response.status_code if error.response is not None else 500, text) from error
        except _FOREIGN as error:
            root = _root(error)
            if isinstance(error, requests.Timeout) or isinstance(root, TimeoutError):
                slow = f"the Docker Engine at {self._settings.url} did not answer in time"
                raise errors.DriverTimeout(slow) from error
            raise errors.DriverUnavailable(
                f"the Docker Engine at {self._settings.url} cannot be reached: {root}. Start it, let "
                "this user use it, or correct [orchestrator_docker] url"
            ) from error

    @property
    def connected(self) -> bool:
        """Whether it was ever spoken to since it was made or closed."""
        with self._lock:
            return self._connected is not None

    def close(self) -> None:
        with self._lock:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    # -- streams ----------------------------------------------------------------------------------------

    def pull(self, repository: str, tag: str, credentials: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Pull an image with credentials of the form of Docker's AuthConfig; yields what happens.

        ``tag`` may be a digest.  Raises Refused when the registry or the Engine refuse.
        """
        # Not by the SDK's pull: it would look into its own file where there are no credentials.
        headers = {"X-Registry-Auth": docker.auth.encode_header(dict(credentials))}
        query = {"fromImage": repository, "tag": tag}
        answer = self._request("POST", "/images/create", SILENCE, query, headers=headers, stream=True)
        with self.translated(), contextlib.closing(answer):
            for line in answer.iter_lines():
                event = _event(line)
                if "error" in event:
                    raise _refusal(500, str(event["error"]))
                yield event

    def build(
        self, context: BinaryIO, tag: str, arguments: Mapping[str, str], cached: bool
    ) -> Iterator[Mapping[str, Any]]:
        """Build an image of a tar file, without a network; yields what happens.

        ``cached``: steps that were made before need not be made again.  Raises Refused when a step fails.
        """
        with self.translated():
            client = self.client()
            for event in client.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                network_mode="none",  # what is built comes from the base and from here
                nocache=not cached,
                timeout=BUILD_SILENCE,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                if "error" in event:
                    raise _refusal(500, str(event["error"]))
                yield event

    def events(self, deadline: deadlines.Deadline) -> list[Mapping[str, Any]]:
        """All that the Engine remembers to have happened, oldest first."""
        # by its clock: it would wait for a later end
        now = datetime.datetime.fromisoformat(self.call("GET", "/info", deadline)["SystemTime"])
        query = {"since": "0", "until": f"{now.timestamp():.6f}"}
        answer = self._request("GET", "/events", deadline.remaining(), query)
        return [json.loads(line) for line in answer.text.splitlines() if line.strip()]

    @contextlib.contextmanager
    def attached(self, container: str) -> Iterator[Iterator[bytes]]:
        """What a container writes, standard output and error, from this call to its end.

        It may be read in another thread; whoever reads it when this is left gets no more.
        """
        with self.translated():
            stream = self.client().attach(container, stream=True)
        try:
            yield self._translated_stream(stream)
        finally:
            # The Engine leaves that of a container that never ran open for ever.
            with contextlib.suppress(OSError):  # it is at its end
                stream.close()

    def _translated_stream(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        with self.translated():
            yield from chunks

    def logs(self, container: str, lines: int) -> bytes:
        """The last lines that a container wrote."""
        with self.translated():
            data: bytes = self.client().logs(container, stdout=True, stderr=True, tail=lines)
            return data


def _event(line: bytes) -> Mapping[str, Any]:
    try:
        event: Mapping[str, Any] = json.loads(line)
    except ValueError as error:
        raise Refused(500, f"{line[:200]!r}, which is not JSON") from error
    return event


def _tls(files: tuple[str, str, str]) -> docker.tls.TLSConfig:
    authority, certificate, key = files
    return docker.tls.TLSConfig(
        ca_cert=authority, client_cert=(certificate, key) if certificate else None, verify=True
    )


def _refusal(status: int, message: str) -> errors.DriverError:
    if "no space left on device" in message:
        return errors.EngineFull(
            f"the Docker Engine has no disk space left ({message}). Free some: docker system df says what "
            "takes it"
        )
    return Refused(status, message)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]


def _root(error: BaseException) -> BaseException:
    """What is at the bottom of nested errors of the SDK."""
    seen = error
    while (cause := seen.__cause__ or seen.__context__) is not None and cause is not seen:
        seen = cause
    return seen

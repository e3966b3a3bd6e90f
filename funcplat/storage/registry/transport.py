"""HTTP to registries: deadlines, redirects that keep secrets, and errors that name the hop that failed.

Requests go to the transport of httpx and not to its client: no cookies, no environment, no redirect that is
not looked at first.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import httpx

from funcplat import errors
from funcplat.storage.registry import failures
from funcplat.storage.registry.deadline import Deadline

MAX_HOPS = 6
"""Redirects that are followed: registries need one, to where they keep their blobs."""

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a manifest, which the distribution specification asks registries to accept; more is not read."""

MAX_LEFT = 16 * 1024
"""Bytes of an answer that nobody wants and that are read nevertheless: fewer than a new connection costs."""

CONNECTIONS = httpx.Limits(max_connections=128, max_keepalive_connections=16, keepalive_expiry=20.0)
REDIRECTS = frozenset([301, 302, 303, 307, 308])


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A request."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: bytes | Iterable[bytes] = b""

    def redirected(self, target: httpx.URL) -> Call:
        """The same at another address, which learns the caller's secrets only if it is of the same origin."""
        kept = self.headers
        if origin(target) != origin(self.url):
            kept = {key: value for key, value in kept.items() if key.lower() != "authorization"}
        return dataclasses.replace(self, url=target, headers=kept)


class Answer:
    """What came back; its body is still to be read, within the deadline of the call."""

    def __init__(self, call: Call, response: httpx.Response, deadline: Deadline) -> None:
        self.url = call.url
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._deadline = deadline
        self._is_untouched = True
        length = response.headers.get("content-length", "")
        self._is_short = call.method == "HEAD" or (length.isdecimal() and int(length) <= MAX_LEFT)

    @functools.cached_property
    def document(self) -> bytes:
        """The body, of which an error says more; read once."""
        return self.read()

    def read(self) -> bytes:
        """The body of a document.  Raises DriverError for one that is too large, DriverTimeout."""
        parts, size = [], 0
        for chunk in self.chunks():
            size += len(chunk)
            if size > MAX_DOCUMENT:
                raise errors.DriverError(f"{place(self.url)} answered with more than {MAX_DOCUMENT} bytes")
            self._deadline.left(f"reading the answer of {place(self.url)}")
            parts.append(chunk)
        return b"".join(parts)

    def chunks(self) -> Iterator[bytes]:
        """The body in chunks of at most 64 KiB.  Who reads may be slow; who sends may not stop for long."""
        self._is_untouched = False
        chunks = self._response.iter_raw()
        while True:
            with _translated(self.url):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        """Be done with it; what is short is read first, since only then can the connection be used again."""
        if self._is_untouched and self._is_short:
            with contextlib.suppress(errors.DriverUnavailable):
                collections.deque(self.chunks(), maxlen=0)
        with _translated(self.url):
            self._response.close()


class Transport:
    """Sends requests over kept connections.  Thread-safe."""

    def __init__(self, ca_file: str | None, plain_http: Sequence[str]) -> None:
        self._ca_file = ca_file
        self._plain_http = plain_http
        self._lock = threading.Lock()
        self._http: httpx.HTTPTransport | None = None
        self._closed = False

    def check(self) -> None:
        """Raise DriverError where the certificates cannot be loaded."""
        self._opened()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._http is not None:
                self._http.close()

    def base(self, host: str) -> httpx.URL:
        """The URL of a registry, by its host and port as they stand in names."""
        url = httpx.URL(f"https://{host}")
        return url.copy_with(scheme="http") if self._is_plain(url) else url

    @contextlib.contextmanager
    def send(self, call: Call, deadline: Deadline) -> Iterator[Answer]:
        """The answer to a request, whatever its status; reads are redirected.  Raises DriverError."""
        answer = self._follow(call, deadline)
        try:
            yield answer
        finally:
            answer.close()

    def _follow(self, call: Call, deadline: Deadline) -> Answer:
        for _ in range(MAX_HOPS):
            answer = self._exchange(call, deadline)
            target = answer.headers.get("location")
            if answer.status not in REDIRECTS or call.method not in ("GET", "HEAD") or not target:
                return answer
            answer.close()
            call = call.redirected(joined(call.url, target))
        raise errors.DriverError(f"{place(call.url)}: more than {MAX_HOPS - 1} redirects after another")

    def _exchange(self, call: Call, deadline: Deadline) -> Answer:
        if call.url.scheme != "https" and not (call.url.scheme == "http" and self._is_plain(call.url)):
            raise failures.Untrusted(
                f"{place(call.url)} is to be reached by {call.url.scheme} without TLS, which is allowed for "
                "the hosts in [storage_registry] plain_http alone; give it a certificate, or name it there"
            )
        if not all(0 < len(label) < 64 for label in call.url.host.removesuffix(".").split(".")):
            raise failures.HostUnknown(f"{place(call.url)[:300]!r} is not a name that can have an address")
        seconds = deadline.left(f"asking {place(call.url)}")
        request = httpx.Request(
            call.method,
            call.url,
            # Compressed answers would have other digests.
            headers={"User-Agent": "funcplat", "Accept-Encoding": "identity", **call.headers},
            content=call.content,
            extensions={"timeout": httpx.Timeout(seconds).as_dict()},
        )
        with _translated(call.url):
            return Answer(call, self._opened().handle_request(request), deadline)

    def _is_plain(self, url: httpx.URL) -> bool:
        return any(matches(url, pattern) for pattern in self._plain_http)

    def _opened(self) -> httpx.HTTPTransport:
        with self._lock:
            if self._closed:
                raise errors.DriverUnavailable("the storage driver registry is closed")
            if self._http is None:
                self._http = httpx.HTTPTransport(verify=_tls(self._ca_file), limits=CONNECTIONS)
            return self._http


def joined(base: httpx.URL, location: str) -> httpx.URL:
    """The URL that a header Location means.  Raises DriverError."""
    try:
        return base.join(location)
    except httpx.InvalidURL as error:
        raise errors.DriverError(f"{place(base)} refers to {location[:200]!r}, which is no URL") from error


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Who receives what is sent there."""
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


def place(url: httpx.URL) -> str:
    """Host and port of a URL, for people; never its path or query, which may hold secrets."""
    return str(url.netloc, "ascii", "replace").rpartition("@")[2]


def matches(url: httpx.URL, pattern: str) -> bool:
    """Whether a pattern means a host: ``host``, ``host:port``, an address or a network in CIDR notation."""
    if pattern.lower() in (url.host, place(url).lower()):
        return True
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise errors.DriverError(
                f"[storage_registry] ca_file {ca_file} cannot be used: {error.strerror or error}; "
                "it must be a readable file of certificates in PEM"
            ) from error
    return context


@contextlib.contextmanager
def _translated(url: httpx.URL) -> Iterator[None]:
    """Turn errors of the HTTP library into those of drivers, with what to do."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise errors.DriverTimeout(
            f"{place(url)} did not answer in time ({type(error).__name__}); see whether it is overloaded, or "
            "whether a firewall drops what is sent to it"
        ) from error
    except httpx.ConnectError as error:
        raise _connect_failure(url, error) from error
    except httpx.TransportError as error:
        raise failures.Unreachable(f"the connection to {place(url)} broke: {error}; try again") from error


def _connect_failure(url: httpx.URL, error: httpx.ConnectError) -> errors.DriverError:
    """By what the operating system or TLS said, which is some causes down."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # the pool of connections hides the cause
    where = place(url)
    if isinstance(cause, socket.gaierror):
        return failures.HostUnknown(
            f"the name of the registry {where} cannot be resolved: {cause.strerror}; check how it is "
            "spelled, and the name servers of this machine"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return failures.Untrusted(
            f"the certificate of {where} is not to be trusted: {cause.verify_message}; if it is of an "
            "authority of your own, name that one's file in [storage_registry] ca_file"
        )
    if isinstance(cause, ssl.SSLError):
        return failures.Untrusted(
            f"{where} does not speak TLS as it should ({cause.reason or cause}); if it is meant to be "
            "without TLS, name it in [storage_registry] plain_http"
        )
    if isinstance(cause, ConnectionRefusedError):
        return failures.Refused(f"nothing listens at {where}; start the registry, or correct host and port")
    detail = cause.strerror if cause is not None else error
    return failures.Unreachable(f"{where} cannot be reached: {detail}; check the network in between")

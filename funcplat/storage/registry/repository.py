"""The API of a registry, as far as it concerns one repository: manifests, blobs, uploads, tags."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator

import httpx

from funcplat import errors
from funcplat.registryauth import Credentials
from funcplat.storage.registry import answers, failures, manifests, names
from funcplat.storage.registry.deadline import Deadline
from funcplat.storage.registry.tokens import Authorizer, Key
from funcplat.storage.registry.transport import Answer, Call, Transport, joined, origin, place

LOG = logging.getLogger(__name__)
PULL, PUSH, DELETE = "pull", "pull,push", "delete"
TAGS_AT_ONCE = 1000
MAX_PAGES = 10_000
CANCEL_SECONDS = 2.0
"""What giving up an upload may take beyond the deadline of the put that failed."""

UNSETTLED_PAUSES = (0.05, 0.1, 0.2, 0.4)
"""Seconds between attempts while a registry is of two minds.

Where the reference implementation keeps files, it writes links by truncating them first.  Who reads one while
another client pushes the same digest gets a 500, or is told that the blob he has just pushed is not known.
"""

BYTES = "application/octet-stream"
_BLOB_UNKNOWN = frozenset(["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A manifest as the registry has it; its bytes have this digest."""

    digest: str  # sha256:…
    media_type: str
    body: bytes


class Repository:
    """One repository, as one user.  Thread-safe."""

    def __init__(
        self, transport: Transport, authorizer: Authorizer, host: str, name: str, credentials: Credentials
    ) -> None:
        self.host = host
        self.name = name
        self._transport = transport
        self._authorizer = authorizer
        self._credentials = credentials
        base = transport.base(names.API_HOSTS.get(host, host))
        self._base = base.copy_with(path=f"/v2/{name}/")

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    # -- manifests -----------------------------------------------------------------------------------------

    def manifest(self, reference: str, deadline: Deadline) -> Document:
        """By tag or digest.  Raises Missing; PackageCorrupt where the bytes are not those of the digest."""
        accept = {"Accept": manifests.ACCEPT}
        with self._settled(PULL, "GET", f"manifests/{reference}", deadline, accept) as answer:
            answers.expect(answer, 200)
            body = answer.read()
        digest = digest_of(body)
        expected = (
            reference if names.is_digest(reference) else answer.headers.get("docker-content-digest", "")
        )
        if expected.startswith("sha256:") and expected != digest:
            raise errors.PackageCorrupt(
                f"the manifest {reference} of {self} was damaged: it has the digest {digest}, not {expected}"
            )
        return Document(digest, answer.headers.get("content-type", ""), body)

    def manifest_digest(self, reference: str, deadline: Deadline) -> str:
        """What a tag points at by the registry's word, also where that is damaged.  Raises Missing."""
        accept = {"Accept": manifests.ACCEPT}
        with self._settled(PULL, "HEAD", f"manifests/{reference}", deadline, accept) as answer:
            answers.expect(answer, 200)
            digest = answer.headers.get("docker-content-digest", "")
        return digest if names.is_digest(digest) else self.manifest(reference, deadline).digest

    def put_manifest(self, tag: str, media_type: str, body: bytes, deadline: Deadline) -> None:
        """Let a tag point at this manifest.  Raises DriverUnavailable where what it refers to has gone."""
        headers = {"Content-Type": media_type}
        with self._settled(PUSH, "PUT", f"manifests/{tag}", deadline, headers, body) as answer:
            if _lacks_blob(answer):
                raise errors.DriverUnavailable(
                    f"{self}: a blob was removed while a package was put ({answers.described(answer)})"
                )
            answers.expect(answer, 200, 201, 202)

    def delete_manifest(self, digest: str, deadline: Deadline) -> None:
        """Remove a manifest and its tags.  Missing: returns.  Raises DeletionRefused."""
        with self._settled(DELETE, "DELETE", f"manifests/{digest}", deadline) as answer:
            if answer.status == 405 or answers.codes(answer) & {"UNSUPPORTED"}:
                raise failures.DeletionRefused(
                    f"{self.host} does not delete ({answers.described(answer)}); allow it there "
                    "(distribution: storage.delete.enabled), or keep packages in a registry that does"
                )
            if answer.status != 404:
                answers.expect(answer, 200, 202, 204)

    def tags(self, deadline: Deadline) -> Iterator[str]:
        """Every tag; none where the repository does not exist yet."""
        url = self._base.join(f"tags/list?n={TAGS_AT_ONCE}")
        for _ in range(MAX_PAGES):
            with self._settled(PULL, "GET", url, deadline) as answer:
                if answer.status == 404:
                    return
                answers.expect(answer, 200)
                page = _tags(answer)
                link = _NEXT.search(answer.headers.get("link", ""))
            yield from page
            if link is None or not page:
                return
            url = joined(answer.url, link[1])
        raise errors.DriverError(f"{self}: its list of tags does not come to an end")

    # -- blobs ---------------------------------------------------------------------------------------------

    def has_blob(self, digest: str, deadline: Deadline) -> bool:
        """By the registry's word: whether its bytes are right shows only when they are read.

        One that the registry fails over counts as missing: pushing it anew mends a link that was cut off.
        """
        with self._settled(PULL, "HEAD", f"blobs/{digest}", deadline) as answer:
            answers.expect(answer, 200, 404, 500)
            return answer.status == 200

    @contextlib.contextmanager
    def open_blob(self, digest: str, deadline: Deadline) -> Iterator[Iterator[bytes]]:
        """Its bytes, not checked.  Raises Missing on entry."""
        with self._settled(PULL, "GET", f"blobs/{digest}", deadline) as answer:
            answers.expect(answer, 200)
            yield answer.chunks()

    def read_blob(self, descriptor: manifests.Descriptor, deadline: Deadline) -> bytes:
        """A small blob as a whole.  Raises Missing, PackageCorrupt."""
        with self._settled(PULL, "GET", f"blobs/{descriptor.digest}", deadline) as answer:
            answers.expect(answer, 200)
            body = answer.read()
        if digest_of(body) != descriptor.digest:
            raise errors.PackageCorrupt(
                f"the blob {descriptor.digest} of {self} was damaged: it has the digest {digest_of(body)}"
            )
        return body

    def upload(self, digest: str, size: int, data: bytes | Iterable[bytes], deadline: Deadline) -> None:
        """Keep a blob of a digest that is known; it is there when all bytes have come and are right.

        One request with all bytes, since that is what every registry takes.  What ``data`` raises passes
        through and ends the upload.
        """
        with self._begun(deadline) as location:
            self._commit(location, digest, size, data, deadline)

    def upload_hashed(self, size: int, data: Iterable[bytes], deadline: Deadline) -> str:
        """Keep a blob whose digest is known only once it was sent; returns that."""
        sha256 = hashlib.sha256()
        headers = {"Content-Type": BYTES, "Content-Length": str(size)}
        with self._begun(deadline) as location:
            with self._send(PUSH, "PATCH", location, deadline, headers, _hashed(data, sha256)) as answer:
                answers.expect(answer, 201, 202, 204)
                location = _location(answer)
            digest = f"sha256:{sha256.hexdigest()}"
            self._commit(location, digest, 0, b"", deadline)
        return digest

    def probe_upload(self, deadline: Deadline) -> None:
        """Begin an upload and give it up: raises what stands against it."""
        with self._begun(deadline) as location:
            self._cancel(location)

    @contextlib.contextmanager
    def _begun(self, deadline: Deadline) -> Iterator[httpx.URL]:
        with self._send(PUSH, "POST", "blobs/uploads/", deadline, {"Content-Length": "0"}) as answer:
            answers.expect(answer, 202)
            location = _location(answer)
        try:
            yield location
        except BaseException:
            self._cancel(location)
            raise

    def _commit(
        self,
        location: httpx.URL,
        digest: str,
        size: int,
        data: bytes | Iterable[bytes],
        deadline: Deadline,
    ) -> None:
        # Added by hand: what the registry put into its URL must come back as it was.
        url = joined(location, f"{location}{'&' if location.query else '?'}digest={digest}")
        headers = {"Content-Type": BYTES, "Content-Length": str(size)}
        with self._send(PUSH, "PUT", url, deadline, headers, data) as answer:
            answers.expect(answer, 201, 202, 204)

    def _cancel(self, location: httpx.URL) -> None:
        """Give up an upload.  A registry that does not know how clears away what is old by itself."""
        try:
            with self._send(PUSH, "DELETE", location, Deadline.after(CANCEL_SECONDS)) as answer:
                LOG.debug("upload to %s given up: %s", self, answer.status)
        except errors.DriverError as error:
            LOG.debug("upload to %s left to the registry: %s", self, error)

    # -- requests ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _settled(
        self,
        actions: str,
        method: str,
        target: str | httpx.URL,
        deadline: Deadline,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
    ) -> Iterator[Answer]:
        """The answer to a request that may be repeated, once the registry has made up its mind."""
        for pause in UNSETTLED_PAUSES:
            with self._send(actions, method, target, deadline, headers, content) as answer:
                if not _is_unsettled(method, answer):
                    yield answer
                    return
            time.sleep(min(pause, deadline.left(f"asking {self.host} again")))
        with self._send(actions, method, target, deadline, headers, content) as answer:
            yield answer

    @contextlib.contextmanager
    def _send(
        self,
        actions: str,
        method: str,
        target: str | httpx.URL,
        deadline: Deadline,
        headers: dict[str, str] | None = None,
        content: bytes | Iterable[bytes] = b"",
    ) -> Iterator[Answer]:
        """The answer to a request, which is authorized as the registry asks for."""
        url = self._base.join(target) if isinstance(target, str) else target
        call = Call(method, url, headers or {}, content)
        key = Key(self.host, f"repository:{self.name}:{actions}", self._credentials)
        with self._transport.send(self._signed(call, self._authorizer.known(key)), deadline) as answer:
            if answer.status != 401 or not self._is_own(answer.url):
                yield answer
                return
        header = self._authorizer.answer(key, answer, deadline)
        if not isinstance(content, bytes):
            raise errors.DriverUnavailable(f"{self}: the authorization ended during an upload; try again")
        with self._transport.send(self._signed(call, header), deadline) as answer:
            yield answer

    def _signed(self, call: Call, header: str | None) -> Call:
        if header is None or not self._is_own(call.url):
            return call
        return dataclasses.replace(call, headers={**call.headers, "Authorization": header})

    def _is_own(self, url: httpx.URL) -> bool:
        """Whether our secrets may be sent there."""
        return origin(url) == origin(self._base)


def _is_unsettled(method: str, answer: Answer) -> bool:
    return answer.status == 500 or (method == "PUT" and _lacks_blob(answer))


def _lacks_blob(answer: Answer) -> bool:
    """Whether a manifest was refused because something that it refers to is not there."""
    return answer.status in (400, 404) and bool(answers.codes(answer) & _BLOB_UNKNOWN)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _hashed(data: Iterable[bytes], sha256: hashlib._Hash) -> Iterator[bytes]:
    for chunk in data:
        sha256.update(chunk)
        yield chunk


def _location(answer: Answer) -> httpx.URL:
    location = answer.headers.get("location")
    if not location:
        raise errors.DriverError(f"{place(answer.url)} does not say where to upload to")
    return joined(answer.url, location)


def _tags(answer: Answer) -> list[str]:
    try:
        tags = json.loads(answer.read())["tags"] or []
        return [str(tag) for tag in tags]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.DriverError(f"{place(answer.url)}: its list of tags cannot be read: {error}") from error

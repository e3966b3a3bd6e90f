"""Names of images: the grammar that all clients of registries share, with its defaults."""

from __future__ import annotations

import dataclasses
import ipaddress
import re

from funcplat import registryauth
from funcplat.storage.registry import failures

DEFAULT_TAG = "latest"
LONGEST_NAME = 255
"""Characters of host and repository together."""

API_HOSTS = {registryauth.DEFAULT_HOST: "registry-1.docker.io"}
"""Registries whose API is at another host than the one in the names of their images."""

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_PORT = re.compile(r":[0-9]+$")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image is, with everything that the short form leaves out."""

    host: str  # with the port, if one was given
    repository: str
    tag: str | None  # None where only the digest counts
    digest: str | None  # sha256:…

    @property
    def reference(self) -> str:
        """What its manifest is asked for by: the digest where there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"


def parse(text: str) -> ImageName:
    """``[host[:port]/]repository[:tag][@digest]``.  Raises InvalidReference that says which part is wrong."""
    shown = repr(text[:300])
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise failures.InvalidReference(f"image {shown}: after @ stands sha256: and 64 lower-case hex digits")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise failures.InvalidReference(f"image {shown}: {tag[:130]!r} cannot be a tag")
    host, repository = registryauth.split_host(head + slash + last)
    _check_place(host, repository, shown)
    return ImageName(host, repository, tag or (None if digest else DEFAULT_TAG), digest or None)


def parse_repository(text: str) -> tuple[str, str]:
    """Host and repository of a name without tag and digest.  Raises InvalidReference."""
    host, repository = registryauth.split_host(text)
    _check_place(host, repository, repr(text[:300]))
    return host, repository


def is_digest(text: object) -> bool:
    """Whether this is a digest of the one kind that can be checked here, SHA-256."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def _is_address_if_it_looks_like_one(host: str) -> bool:
    address = _PORT.sub("", host).strip("[]")
    if set(address) - set("0123456789.") and not host.startswith("["):
        return True
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _check_place(host: str, repository: str, shown: str) -> None:
    if not _HOST.fullmatch(host) or not _is_address_if_it_looks_like_one(host):
        raise failures.InvalidReference(f"image {shown}: {host[:260]!r} cannot be a host")
    if (port := _PORT.search(host)) and int(port[0][1:]) not in range(1, 65536):
        raise failures.InvalidReference(f"image {shown}: the port is not between 1 and 65535")
    if not _REPOSITORY.fullmatch(repository):
        raise failures.InvalidReference(
            f"image {shown}: a repository has lower-case letters and digits, in parts separated by /, "
            "each of which may have . _ __ or - between them"
        )
    if len(host) + 1 + len(repository) > LONGEST_NAME:
        raise failures.InvalidReference(f"image {shown}: longer than {LONGEST_NAME} characters")

"""Who the platform is to a registry of images: what a user gave, or what a file says as Docker keeps one.

Below all drivers: who resolves an image and who pulls it must read the same file alike.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import pathlib
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from funcplat import errors

DEFAULT_HOST = "docker.io"
DEFAULT_NAMESPACE = "library"
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_ALIASES = {"index.docker.io": DEFAULT_HOST, "registry-1.docker.io": DEFAULT_HOST}
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_KNOWS_NOTHING = "credentials not found"
_REFRESH_USER = "<token>"  # of helpers that keep a refresh token in the place of a password


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """The fields of Docker's AuthConfig.  All empty: anonymous."""

    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    identity_token: str = dataclasses.field(default="", repr=False)  # exchanged for a registry token
    registry_token: str = dataclasses.field(default="", repr=False)  # sent as it is

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Credentials:
        """From ``username``, ``password``, ``identitytoken``, ``registrytoken``; other keys mean nothing."""
        keys = ("username", "password", "identitytoken", "registrytoken")
        username, *secrets = (str(value.get(key) or "") for key in keys)
        if username == _REFRESH_USER:
            return cls(identity_token=secrets[0])
        return cls(username, *secrets)

    @property
    def who(self) -> str:
        """For people."""
        if self.username:
            return f"the user {self.username!r}"
        return "the token given" if self.identity_token or self.registry_token else "nobody (no credentials)"

    def basic(self) -> str:
        """The value of the header Authorization."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


def split_host(name: str) -> tuple[str, str]:
    """Host and repository of an image's name without tag and digest, as all clients of registries read it.

    The host is the default one where the first part does not look like one.
    """
    first, slash, rest = name.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost" or first != first.lower()):
        first, rest = DEFAULT_HOST, name
    host = _ALIASES.get(first.lower(), first)
    if host == DEFAULT_HOST and "/" not in rest:
        rest = f"{DEFAULT_NAMESPACE}/{rest}"
    return host, rest


@dataclasses.dataclass(frozen=True, slots=True)
class AuthFile:
    """A file of the form of Docker's config.json, as ``docker login`` and pull secrets have it."""

    path: pathlib.Path
    option: str  # what names it, for people: "[storage_registry] auth_file"

    def check(self) -> None:
        """Raise DriverError where it cannot be used."""
        self._read()

    def find(self, host: str, repository: str, timeout: float) -> Credentials:
        """Those for a repository, the most particular entry first; else anonymous.  Read anew each time.

        ``host`` and ``repository`` as `split_host` gives them; ``timeout``: seconds for a credential helper.
        Raises DriverError, DriverTimeout.
        """
        content = self._read()
        entries = self._section(content, "auths")
        for key in _keys(host, repository):
            if (
                isinstance(entry := entries.get(key), dict)
                and (found := self._entry(key, entry)) != ANONYMOUS
            ):
                return found
        helpers = self._section(content, "credHelpers")
        helper = next((helpers[key] for key in _keys(host, "") if key in helpers), content.get("credsStore"))
        if helper:
            return self._ask(str(helper), DOCKER_HUB_KEY if host == DEFAULT_HOST else host, timeout)
        return ANONYMOUS

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise errors.DriverError(
                f"{self.option} {self.path}: {error.strerror}; this server's user must read it"
            ) from error
        except ValueError as error:
            raise errors.DriverError(f"{self.option} {self.path} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise errors.DriverError(f"{self.option} {self.path} is not an object of JSON")
        return content

    def _section(self, content: Mapping[str, Any], name: str) -> dict[str, Any]:
        section = content.get(name) or {}
        if not isinstance(section, dict):
            raise errors.DriverError(f"{self.option} {self.path}: {name} is not an object of JSON")
        return section

    def _ask(self, helper: str, server: str, timeout: float) -> Credentials:
        if not _HELPER.fullmatch(helper):
            raise errors.DriverError(f"{self.option}: {helper[:80]!r} cannot be a credential helper")
        return _ask_helper(f"docker-credential-{helper}", server, timeout)

    def _entry(self, key: str, entry: Mapping[str, Any]) -> Credentials:
        if not entry.get("auth"):
            return Credentials.of(entry)
        try:
            decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise errors.DriverError(
                f"{self.option} {self.path}: auth of {key!r} is not base64; run docker login"
            ) from error
        username, _, password = decoded.partition(":")
        # An old bug of Docker's leaves NULs at the end.
        return Credentials.of({**entry, "username": username, "password": password.strip("\0")})


def _keys(host: str, repository: str) -> list[str]:
    """What an entry for a repository may be called, the most particular first."""
    parts = repository.split("/") if repository else []
    paths = ["/".join([host, *parts[:count]]) for count in range(len(parts), -1, -1)]
    if host == DEFAULT_HOST:
        paths += [DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io"]
    return [*paths, *(f"https://{host}{end}" for end in ("", "/", "/v1/", "/v2/")), f"http://{host}"]


def _ask_helper(program: str, server: str, timeout: float) -> Credentials:
    """What a credential helper says of a server."""
    try:
        done = subprocess.run(  # noqa: S603  a program that the operator's file names
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.DriverTimeout(f"{program} did not answer in time") from error
    except OSError as error:
        raise errors.DriverError(
            f"the credential helper {program} cannot be run: {error.strerror}; it must be in the PATH"
        ) from error
    if done.returncode != 0:
        if _HELPER_KNOWS_NOTHING in (done.stdout + done.stderr).lower():
            return ANONYMOUS
        # Only its exit code: what a helper prints may hold what it should keep.
        raise errors.DriverError(
            f"{program} ended with {done.returncode}; run it by hand as this server's user"
        )
    try:
        found = json.loads(done.stdout)
        return Credentials.of({"username": found["Username"], "password": found["Secret"]})
    except (ValueError, KeyError, TypeError) as error:
        raise errors.DriverError(f"{program} did not print what helpers print") from error

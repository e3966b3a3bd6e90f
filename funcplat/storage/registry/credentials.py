"""Who we are to a registry: what a user gave, or what the file says that Docker and its like keep."""

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
from funcplat.storage.registry import names
from funcplat.storage.registry.deadline import Deadline

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
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


@dataclasses.dataclass(frozen=True, slots=True)
class AuthFile:
    """A file of the form of Docker's config.json, as ``docker login`` and pull secrets have it."""

    path: pathlib.Path

    def check(self) -> None:
        """Raise DriverError where it cannot be used."""
        self._read()

    def find(self, host: str, repository: str, deadline: Deadline) -> Credentials:
        """Those for a repository, the most particular entry first; else anonymous.  Read anew each time."""
        content = self._read()
        entries = _section(content, "auths", self.path)
        for key in _keys(host, repository):
            if (
                isinstance(entry := entries.get(key), dict)
                and (found := self._entry(key, entry)) != ANONYMOUS
            ):
                return found
        helpers = _section(content, "credHelpers", self.path)
        helper = next((helpers[key] for key in _keys(host, "") if key in helpers), content.get("credsStore"))
        if helper:
            return _ask_helper(str(helper), DOCKER_HUB_KEY if host == names.DEFAULT_HOST else host, deadline)
        return ANONYMOUS

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise errors.DriverError(
                f"[storage_registry] auth_file {self.path}: {error.strerror}; this server's user must read it"
            ) from error
        except ValueError as error:
            raise errors.DriverError(
                f"[storage_registry] auth_file {self.path} is not JSON: {error}"
            ) from error
        if not isinstance(content, dict):
            raise errors.DriverError(f"[storage_registry] auth_file {self.path} is not an object of JSON")
        return content

    def _entry(self, key: str, entry: Mapping[str, Any]) -> Credentials:
        if not entry.get("auth"):
            return Credentials.of(entry)
        try:
            decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise errors.DriverError(
                f"[storage_registry] auth_file {self.path}: auth of {key!r} is not base64; run docker login"
            ) from error
        username, _, password = decoded.partition(":")
        # An old bug of Docker's leaves NULs at the end.
        return Credentials.of({**entry, "username": username, "password": password.strip("\0")})


def _section(content: Mapping[str, Any], name: str, path: pathlib.Path) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise errors.DriverError(f"[storage_registry] auth_file {path}: {name} is not an object of JSON")
    return section


def _keys(host: str, repository: str) -> list[str]:
    """What an entry for a repository may be called, the most particular first."""
    parts = repository.split("/") if repository else []
    paths = ["/".join([host, *parts[:count]]) for count in range(len(parts), -1, -1)]
    if host == names.DEFAULT_HOST:
        paths += [DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io"]
    return [*paths, *(f"https://{host}{end}" for end in ("", "/", "/v1/", "/v2/")), f"http://{host}"]


def _ask_helper(name: str, server: str, deadline: Deadline) -> Credentials:
    """What ``docker-credential-<name> get`` says."""
    program = f"docker-credential-{name}"
    if not _HELPER.fullmatch(name):
        raise errors.DriverError(f"[storage_registry] auth_file: {name[:80]!r} cannot be a credential helper")
    try:
        done = subprocess.run(  # noqa: S603  a program that the operator's file names
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=deadline.left(f"asking {program}"),
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

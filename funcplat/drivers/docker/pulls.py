"""Pulling images, with credentials for their registries, and what it means when that fails."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import re
import threading
from collections.abc import Mapping

from funcplat import errors, registryauth
from funcplat.drivers.docker import deadlines, engine, options

HELPER_DEADLINE = 30.0
"""Seconds that a credential helper may take."""
_MARGIN = 0.5
"""Seconds before the deadline at which waiting for a pull ends with a word about it."""
_ID = re.compile(r"sha256:[0-9a-f]{64}")

_REASONS: tuple[tuple[str, type[errors.DriverError], str], ...] = (
    (
        r"no such host",
        errors.ImageMissing,
        "the registry in its name is not known: correct the image's name, or the Engine's DNS",
    ),
    (
        r"unauthorized|authentication required|no basic auth|denied|forbidden|incorrect username",
        errors.ImageDenied,
        "the registry does not give it to {who}, or there is no such image: correct the name, or {mend}",
    ),
    (
        r"manifest unknown|name unknown|not found|does not exist|no matching manifest",
        errors.ImageMissing,
        "there is no such image, or none for this machine's kind of processor: correct the name or push it",
    ),
    (
        r"invalid reference|invalid tag|invalid repository|must be lowercase",
        errors.ImageUnknown,
        "this is no name of an image",
    ),
    (
        r"x509|certificate|HTTP response to HTTPS",
        errors.ImageUnknown,
        "the registry cannot be trusted: its TLS is not set up as the Docker Engine expects",
    ),
)


class Pulls:
    """Pulls of one Engine, each in a thread of its own and for all who wait for it.  Thread-safe."""

    def __init__(self, docker: engine.Engine, settings: options.Settings) -> None:
        self._docker = docker
        self._given = settings.auth_file
        self._lock = threading.Lock()
        self._running: dict[str, concurrent.futures.Future[None]] = {}

    def check(self) -> None:
        """Raise DriverError where the file of credentials cannot be used."""
        if (file := self._auth_file()) is not None:
            file.check()

    def pull(self, name: str, deadline: deadlines.Deadline) -> None:
        """Return when an image is pulled.

        Raises ImageUnknown and its children, DriverUnavailable where it takes longer: then it goes on.
        """
        if _ID.fullmatch(name):
            raise errors.ImageMissing(
                f"The image {name!r} is gone from the Docker Engine, and no registry is known to have it. "
                "Build it again, and name it anew."
            )
        pull = self._started(name)
        try:
            pull.result(max(0.0, deadline.remaining() - _MARGIN))
        except concurrent.futures.TimeoutError as error:
            raise errors.DriverUnavailable(
                f"The image {name!r} is being pulled; this goes on and is looked at again"
            ) from error
        finally:
            with self._lock:
                if pull.done() and self._running.get(name) is pull:
                    del self._running[name]

    def _started(self, name: str) -> concurrent.futures.Future[None]:
        with self._lock:
            pull = self._running.get(name)
            if pull is None or pull.done():
                pull = self._running[name] = concurrent.futures.Future()
                # No executor: a pull takes minutes, for which the end of this process must not wait.
                threading.Thread(target=self._run, args=(name, pull), name="docker-pull", daemon=True).start()
        return pull

    def _run(self, name: str, pull: concurrent.futures.Future[None]) -> None:
        credentials = registryauth.ANONYMOUS
        try:
            credentials = self._credentials(name)
            for _event in self._docker.pull(*split(name), header(credentials)):
                pass
        except engine.Refused as error:
            pull.set_exception(explained(name, error, credentials, self._mend()))
        except errors.DriverError as error:
            pull.set_exception(error)
        else:
            pull.set_result(None)
        finally:
            if not pull.done():
                pull.set_exception(errors.DriverError(f"The pull of the image {name!r} came to no end"))

    # -- credentials ----------------------------------------------------------------------------------

    def _credentials(self, name: str) -> registryauth.Credentials:
        file = self._auth_file()
        if file is None:
            return registryauth.ANONYMOUS
        return file.find(*place(name), HELPER_DEADLINE)

    def _auth_file(self) -> registryauth.AuthFile | None:
        """The file that is configured, else what ``docker login`` keeps for this user, if anything."""
        if self._given:
            return registryauth.AuthFile(pathlib.Path(self._given), "[orchestrator_docker] auth_file")
        directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")  # noqa: PTH111
        own = pathlib.Path(directory, "config.json")
        return registryauth.AuthFile(own, "this user's file of docker login") if own.is_file() else None

    def _mend(self) -> str:
        if self._given:
            return f"the credentials in {self._given}, which [orchestrator_docker] auth_file names"
        return "run docker login as the user of this platform, or set [orchestrator_docker] auth_file"


def split(name: str) -> tuple[str, str]:
    """Repository, with its host, and tag or digest of an image's name; of both the digest counts."""
    rest, _, digest = name.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, digest or tag or "latest"


def place(name: str) -> tuple[str, str]:
    """Host and repository of an image's name."""
    return registryauth.split_host(split(name)[0])


def header(credentials: registryauth.Credentials) -> Mapping[str, str]:
    """What the Engine takes in X-Registry-Auth; empty for nobody."""
    fields = {
        "username": credentials.username,
        "password": credentials.password,
        "identitytoken": credentials.identity_token,
        "registrytoken": credentials.registry_token,
    }
    return {name: value for name, value in fields.items() if value}


def explained(
    name: str,
    error: engine.Refused,
    credentials: registryauth.Credentials = registryauth.ANONYMOUS,
    mend: str = "the credentials",
) -> errors.DriverError:
    """What the Engine's or the registry's refusal means for whoever wants the image."""
    for pattern, kind, advice in _REASONS:
        if re.search(pattern, error.text, re.IGNORECASE):
            what = advice.format(who=credentials.who, mend=mend)
            return kind(f"The image {name!r} cannot be had: {what} ({error.text})")
    return errors.DriverUnavailable(
        f"The image {name!r} cannot be pulled now, and is tried again: the registry does not answer as it "
        f"should ({error.text})"
    )

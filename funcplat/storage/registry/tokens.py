"""Authorization: the header that a registry accepts from these credentials, kept as long as it holds.

Basic authentication, and the token protocol of the distribution specification: a registry names a server that
gives tokens for a scope; those are asked for by GET with basic authentication, or in exchange for an identity
token by POST.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import threading
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import httpx

from funcplat import errors
from funcplat.registryauth import Credentials
from funcplat.storage.registry import answers, challenges, failures
from funcplat.storage.registry.deadline import Deadline
from funcplat.storage.registry.transport import Answer, Call, Transport, joined, place

DEFAULT_LIFE = 60.0
"""Seconds that a token holds which does not say for how long."""

LIFE_USED = 0.8
"""Part of a token's life after which another one is fetched: it must still hold when a request arrives."""

MAX_KEPT = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What a header is for.  One per user and repository, so that nobody profits from another's rights."""

    host: str
    scope: str
    credentials: Credentials


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    header: str = dataclasses.field(repr=False)
    until: float  # on the monotonic clock


class Authorizer:
    """Answers challenges and remembers the answers.  Thread-safe."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[Key, _Kept] = collections.OrderedDict()

    def known(self, key: Key) -> str | None:
        """The header to begin with, where one is known.  Raises Denied for a token that cannot be sent."""
        if token := key.credentials.registry_token:
            if not _is_token(token):
                raise failures.Denied(f"the token given for {key.host} has characters that no token has")
            return f"Bearer {token}"
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.until <= time.monotonic():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return kept.header

    def answer(self, key: Key, asked: Answer, deadline: Deadline) -> str:
        """The header for a registry that answered 401.  Raises Denied where there is none."""
        found = challenges.parse(asked.headers.get_list("www-authenticate"))
        kept = self._meet(key, asked.url, found, deadline)
        if kept is None:
            wanted = ", ".join(challenge.scheme for challenge in found) or "nothing that it names"
            raise failures.Denied(
                f"{key.host} asks for authentication ({wanted}) and got {key.credentials.who}; "
                "give credentials for it"
            )
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return kept.header

    def _meet(
        self, key: Key, url: httpx.URL, found: Sequence[challenges.Challenge], deadline: Deadline
    ) -> _Kept | None:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(found)}
        if "bearer" in by_scheme and not key.credentials.registry_token:
            return self._token(key, url, by_scheme["bearer"], deadline)
        if "basic" in by_scheme and key.credentials.username:
            return _Kept(key.credentials.basic(), float("inf"))
        return None

    def _token(
        self, key: Key, url: httpx.URL, challenge: challenges.Challenge, deadline: Deadline
    ) -> _Kept | None:
        if not challenge.parameters.get("realm"):
            raise errors.DriverError(f"{key.host} asks for a token and does not say from where")
        realm = joined(url, challenge.parameters["realm"])
        fields = {"scope": challenge.parameters.get("scope") or key.scope}
        if "service" in challenge.parameters:
            fields["service"] = challenge.parameters["service"]
        began = time.monotonic()
        with self._transport.send(_request(realm, fields, key.credentials), deadline) as answer:
            if answer.status in (400, 401, 403, 404):
                raise failures.Denied(
                    f"the token server {place(answer.url)} of {key.host} refuses {key.credentials.who} "
                    f"({answers.described(answer)}); check user and password"
                )
            answers.expect(answer, 200)
            token, life = _read(answer)
        return _Kept(f"Bearer {token}", began + life * LIFE_USED)


def _request(realm: httpx.URL, fields: dict[str, str], credentials: Credentials) -> Call:
    if credentials.identity_token:
        fields |= {
            "grant_type": "refresh_token",
            "client_id": "funcplat",
            "refresh_token": credentials.identity_token,
        }
        body = urllib.parse.urlencode(fields).encode()
        return Call("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body)
    headers = {"Authorization": credentials.basic()} if credentials.username else {}
    return Call("GET", realm.copy_merge_params(fields), headers)


def _is_token(text: str) -> bool:
    """Whether it can stand in a header."""
    return text.isascii() and text.isprintable() and " " not in text


def _read(answer: Answer) -> tuple[str, float]:
    """The token and the seconds that it holds."""
    try:
        value: Any = json.loads(answer.read())
        token = value.get("token") or value.get("access_token")
        life = float(value.get("expires_in") or DEFAULT_LIFE)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise errors.DriverError(
            f"the token server {place(answer.url)} did not answer with a token: {error}"
        ) from error
    if not isinstance(token, str) or not _is_token(token):
        raise errors.DriverError(f"the token server {place(answer.url)} did not answer with a token")
    return token, life

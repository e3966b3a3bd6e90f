"""Signed webhook calls, by the scheme of Standard Webhooks (standardwebhooks.com), version v1.

A sender signs ``id.timestamp.body`` with HMAC-SHA256 and sends the three headers `HEADERS`.  The signature is
of the body's very bytes, so they are checked before anybody reads them.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping

from funcplat import errors

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
PREFIX = "whsec_"
MIN_KEY, MAX_KEY, KEY = 24, 64, 32
"""Bytes of a secret: the least and most that may be given, and those of one that is made here."""
MAX_SIGNATURES = 16
# A full stop would let parts of the id pass for the timestamp, and of that for the body.
_ID = re.compile(r"[!-\-/-~]{1,255}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """What a sender's signature vouches for."""

    id: str
    sent_at: int  # seconds since the epoch, by the sender's clock


def new_secret() -> str:
    """A random secret, as it is shown to whoever is to sign with it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(KEY)).decode("ascii")


def check_secret(secret: str) -> None:
    """Raise InvalidRequest for a secret that cannot be used; the message does not show it."""
    if not MIN_KEY <= len(_key(secret)) <= MAX_KEY:
        raise errors.InvalidRequest(
            f"secret must be {PREFIX} and the base64 of {MIN_KEY} to {MAX_KEY} random bytes."
        )


def sign(secret: str, message: Message, body: bytes) -> str:
    """The signature, as it stands in the header."""
    content = f"{message.id}.{message.sent_at}.".encode("ascii") + body
    digest = hmac.digest(_key(secret), content, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode("ascii")


def verified(
    headers: Mapping[str, str], body: bytes, accepted: Iterable[str], now: int, tolerance: float
) -> Message:
    """What was signed by one of the ``accepted`` secrets.

    ``headers`` by their names in lower case; ``now`` in seconds since the epoch, ``tolerance`` in seconds.
    Raises SignatureInvalid, and TimestampRejected for what was signed too long ago or in the future.
    """
    given = [headers.get(name) for name in HEADERS]
    if None in given:
        raise errors.SignatureInvalid(f"The call must be signed: it needs the headers {', '.join(HEADERS)}.")
    message_id, timestamp, signatures = (str(each) for each in given)
    if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise errors.SignatureInvalid("webhook-id or webhook-timestamp is not of the form that it must have.")
    message = Message(message_id, int(timestamp))
    # The sender signed the digits, not the number.
    if str(message.sent_at) != timestamp or not _matches(message, signatures, body, accepted):
        raise errors.SignatureInvalid
    if abs(now - message.sent_at) > tolerance:
        raise errors.TimestampRejected(
            f"webhook-timestamp is more than {tolerance:g} seconds off the platform's clock; "
            "it must be of the attempt, and the signature too."
        )
    return message


def _matches(message: Message, signatures: str, body: bytes, accepted: Iterable[str]) -> bool:
    expected = [sign(secret, message, body).encode("ascii") for secret in accepted]
    found = False
    for signature in signatures.split(" ")[:MAX_SIGNATURES]:
        for each in expected:
            # All of them, whatever was found: how long it takes must not tell which one was near.
            found |= hmac.compare_digest(each, signature.encode("utf-8", "replace"))
    return found


def _key(secret: str) -> bytes:
    """The bytes of a secret; none of what is no secret."""
    try:
        return base64.b64decode(secret.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""

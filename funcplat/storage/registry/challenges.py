"""The header WWW-Authenticate: how a registry wants its callers to prove who they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  a grammar
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
# RFC 9110 lets one opaque value stand in the place of the parameters.
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$)))?")


@dataclasses.dataclass(frozen=True, slots=True)
class Challenge:
    """One way of authentication; names of schemes and parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of every such header, in order.  What is no challenge is passed over."""
    return [challenge for header in headers for challenge in _parse(header)]


def _parse(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        if found and (match := _PARAMETER.match(header, position)):
            name, quoted, plain = match.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1][1].setdefault(name.lower(), value)
        elif match := _SCHEME.match(header, position):
            found.append((match[1].lower(), {}))
        position = match.end() if match else position + 1
    return [Challenge(scheme, parameters) for scheme, parameters in found]

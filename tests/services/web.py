"""HTTP to servers of this machine."""

from __future__ import annotations

import pathlib

import httpx

TIMEOUT = 30.0


def client(url: str = "", socket: pathlib.Path | None = None, **headers: str) -> httpx.Client:
    """A client of ``url``, over a Unix ``socket`` if given; never through a proxy of the environment."""
    transport = httpx.HTTPTransport(uds=str(socket)) if socket else None
    return httpx.Client(base_url=url, transport=transport, headers=headers, timeout=TIMEOUT, trust_env=False)


def serves(url: str, socket: pathlib.Path | None = None) -> bool:
    """Whether a GET of ``url`` succeeds."""
    with client(socket=socket) as web:
        try:
            return web.get(url).is_success
        except httpx.TransportError:
            return False

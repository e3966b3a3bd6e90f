"""Swift's cache in a dictionary instead of memcached, as a paste filter.  For one proxy process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any


class MemoryCache:
    """What Swift's middleware calls of its memcached client; a time of 0 is for ever."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, float]] = {}

    def set(self, key: str, value: Any, serialize: bool = True, time: float = 0, **unused: Any) -> None:
        # keystonemiddleware stores bytes; what comes back is text, as from memcached
        text = json.dumps(value.decode() if isinstance(value, bytes) else value)
        self._entries[key] = (text, self._now() + time if time else float("inf"))

    def get(self, key: str, **unused: Any) -> Any:
        text, end = self._entries.get(key, ("null", float("inf")))
        if end <= self._now():
            del self._entries[key]
            return None
        return json.loads(text)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._entries.pop(key, None)

    def set_multi(self, mapping: Mapping[str, Any], server_key: str, time: float = 0, **unused: Any) -> None:
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys: list[str], server_key: str) -> list[Any]:
        return [self.get(key) for key in keys]

    @staticmethod
    def _now() -> float:
        return time.monotonic()


def filter_factory(global_configuration: object, **configuration: str) -> Callable[..., Any]:
    """The paste entry point."""
    cache = MemoryCache()

    def wrap(application: Callable[..., Any]) -> Callable[..., Any]:
        def with_cache(environ: dict[str, Any], start_response: Any) -> Any:
            environ["swift.cache"] = cache
            return application(environ, start_response)

        return with_cache

    return wrap

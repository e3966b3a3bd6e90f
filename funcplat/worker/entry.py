"""The user's function: found, called, and its result written as JSON."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from funcplat.worker import verdicts

POSITIONAL_INPUT = "__function_input"
"""The key of an input that is not an object: its value becomes the first positional argument."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAX_TEXT = 16 * 1024  # characters of an exception's text in a result
_MAX_NAMES = 20  # names shown where an entry is not found


class Failure(Exception):
    """An execution or import that failed: the text of its result, its reason and message."""

    def __init__(self, text: str, reason: str, message: str) -> None:
        super().__init__(text, reason, message)
        self.text = text
        self.reason = reason
        self.message = message


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A function that can be called, and what it takes."""

    function: Callable[..., Any]
    names: frozenset[str]  # parameters that can be given by keyword
    required: frozenset[str]  # ... that must be
    open_ended: bool  # it has **kwargs
    wants_context: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Entry:
        if type(function) is types.FunctionType and not hasattr(function, "__wrapped__"):
            return cls._of_plain(function)
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):
            return cls(function, frozenset(), frozenset(), True, False)
        parameters = signature.parameters.values()
        by_keyword = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = frozenset(p.name for p in by_keyword)
        # A positional-only parameter without default makes every call by keyword fail: bind() says it.
        required = frozenset(
            p.name
            for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )
        return cls(function, names, required, open_ended, open_ended or "context" in names)

    @classmethod
    def _of_plain(cls, function: types.FunctionType) -> Entry:
        # PERF: what inspect.signature() would find; running that copies 250 KiB of shared memory.
        code = function.__code__
        positional = code.co_varnames[: code.co_argcount]
        keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        with_default = len(function.__defaults__ or ())
        required = positional[: len(positional) - with_default]
        required += tuple(name for name in keyword_only if name not in (function.__kwdefaults__ or {}))
        names = frozenset(positional[code.co_posonlyargcount :] + keyword_only)
        open_ended = bool(code.co_flags & inspect.CO_VARKEYWORDS)
        return cls(function, names, frozenset(required), open_ended, open_ended or "context" in names)

    def arguments(self, value: Any, context: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for an input; raises Failure where they do not fit."""
        if value is None:
            value = {}
        elif not isinstance(value, dict):
            raise bad_arguments("the input is not a JSON object")
        positional: tuple[Any, ...] = ()
        if POSITIONAL_INPUT in value:
            positional = (value.pop(POSITIONAL_INPUT),)
        if self.wants_context:
            value["context"] = dict(context)
        # PERF: two set operations, 0.2 us; bind() costs 4 us and only words the complaint.
        keys = value.keys()
        if positional or not self.required <= keys or not (self.open_ended or keys <= self.names):
            self._bind(positional, value)
        return positional, value

    def _bind(self, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (ValueError, TypeError):  # a builtin that does not say
            return
        try:
            signature.bind(*positional, **keywords)
        except TypeError as error:
            name = getattr(self.function, "__name__", "function")
            raise bad_arguments(f"{error}; the function is {name}{signature}") from None

    def call(self, positional: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call the function, and await what it returns where that is a coroutine."""
        result = self.function(*positional, **keywords)
        if type(result) is types.CoroutineType:
            import asyncio  # most functions do not need it

            return asyncio.run(result)
        return result


def bad_arguments(complaint: str) -> Failure:
    return Failure(
        f"The input does not fit the function: {complaint}.",
        "bad_arguments",
        f"The input does not fit the function's parameters: {complaint}.",
    )


# -- finding ----------------------------------------------------------------------------------------


def find(entry: str, contents: list[str]) -> Entry:
    """Import ``package.module.function``.  ``contents``: names at the package's top level, for messages.

    Raises Failure where there is no such module or function, and whatever the import raises.
    """
    module_name, _dot, name = entry.rpartition(".")
    try:
        __import__(module_name)  # unlike importlib.import_module, leaves its own frames out of tracebacks
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise _not_found(f"The package has no module {error.name!r}", contents) from None
        raise
    function = getattr(sys.modules[module_name], name, None)
    if not callable(function):
        module = vars(sys.modules[module_name])
        own = [key for key, value in module.items() if callable(value) and not key.startswith("_")]
        what = "no function" if function is None else "something that is not a function"
        raise _not_found(
            f"The module {module_name!r} has {what} named {name!r}; it has {_listed(own)}", contents
        )
    return Entry.of(function)


def _not_found(what: str, contents: list[str]) -> Failure:
    contents = [name for name in contents if not name.startswith((".", "__pycache__"))]
    return Failure(
        f"{what}.",
        "entry_not_found",
        f"{what}. The package holds {_listed(contents)}. An entry is module.function, with the module's path "
        "from the top of the package.",
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:_MAX_NAMES])
    return (shown + (", ..." if len(names) > _MAX_NAMES else "")) or "nothing"


# -- results ----------------------------------------------------------------------------------------


class _Encoder:
    """``json.JSONEncoder(...).encode``."""

    # PERF: JSONEncoder makes its accelerator anew for every value, for 4 us.

    def __init__(self) -> None:
        encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
        self._open: dict[int, object] = {}  # containers that are being written, to find circles
        self._write: Callable[[Any], str] = encoder.encode
        if make := getattr(json.encoder, "c_make_encoder", None):
            quote = json.encoder.encode_basestring_ascii
            pieces = make(self._open, encoder.default, quote, None, ":", ",", False, False, False)
            self._write = lambda value: "".join(pieces(value, 0))

    def encode(self, value: object) -> bytes:
        try:
            return self._write(value).encode("ascii")
        except BaseException:
            self._open.clear()
            raise


_encoder = _Encoder()


def encode(result: object, limit: int) -> bytes:
    """The result as JSON in ASCII; raises Failure where it is none or is longer than ``limit`` bytes."""
    try:
        data = _encoder.encode(result)
    except MemoryError:
        raise
    except BaseException as error:
        raise _not_json(error) from None
    if len(data) > limit:
        raise Failure(
            f"The result is {len(data)} bytes of JSON, more than the {limit} that are allowed.",
            "result_too_large",
            f"The function returned {len(data)} bytes of JSON; the operator allows {limit}. Return less.",
        )
    return data


def _not_json(error: BaseException) -> Failure:
    complaint = text_of(error)
    if isinstance(error, ValueError) and "Out of range float" in complaint:
        complaint = "it holds NaN or infinity, which JSON does not have"
    return Failure(
        f"The result cannot be written as JSON: {complaint}",
        "result_not_json",
        f"The function's return value cannot be written as JSON: {complaint}",
    )


def text_of(error: BaseException) -> str:
    """``str(error)``, or its type's name where that is empty or raises."""
    name = type(error).__name__
    try:
        text = str(error)
        return text[:_MAX_TEXT] if isinstance(text, str) and text else name
    except BaseException:
        return name


def explain(error: BaseException, importing: bool) -> tuple[str, str, str]:
    """Text, reason and message for an exception that the user's code let out."""
    if isinstance(error, Failure):
        return error.text, error.reason, error.message
    summary = f"{type(error).__name__}: {text_of(error)[:300]}"
    what = "The import of the function's module" if importing else "The function"
    if isinstance(error, MemoryError):
        message = f"{what} ran out of memory (MemoryError). Use less memory or raise memory_size."
        return verdicts.RESOURCES_TEXT, "memory_exceeded", message
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        message = f"{what} filled its scratch space ({summary}). Write less, or ask the operator for more."
        return text_of(error), "disk_full", message
    reason = "import_failed" if importing else "function_raised"
    return text_of(error), reason, f"{what} raised {summary}. The traceback is in the log."

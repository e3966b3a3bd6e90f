"""Answers: what they look like.  The OpenAPI document is made from the same classes."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from funcplat.core.aliases import Alias
from funcplat.core.executions import Execution, Record
from funcplat.core.functions import Function
from funcplat.core.runtimes import Pool, Runtime
from funcplat.core.versions import Version

Name = Annotated[str, msgspec.Meta(max_length=255)]
Entry = Annotated[str, msgspec.Meta(max_length=80)]
WAITING = ("queued", "delayed")
"""Which clients know as running."""
PHASES = {"queued": "queued", "delayed": "queued", "running": "running"}
S = TypeVar("S", bound=msgspec.Struct)


# -- answers -------------------------------------------------------------------------------------------------


class ReasonView(msgspec.Struct):
    """Why something is as it is."""

    code: str
    message: str


class RuntimeView(msgspec.Struct):
    """A runtime."""

    id: str
    name: str | None
    image: str
    description: str | None
    is_public: bool
    trusted: bool
    status: str
    project_id: str
    created_at: str
    updated_at: str | None
    orchestrator: str
    reason: ReasonView | None


class PoolCapacity(msgspec.Struct):
    """Workers that a pool may have, and those without a function."""

    total: int
    available: int


class PoolView(msgspec.Struct):
    """A runtime's pool."""

    name: str
    capacity: PoolCapacity


class FunctionView(msgspec.Struct):
    """A function; code is an object, in lists a string that holds one; environment shows no values."""

    id: str
    name: str | None
    description: str | None
    cpu: int
    memory_size: int
    timeout: int
    runtime_id: str | None
    code: str | dict[str, Any] | msgspec.Raw
    entry: str | None
    count: int
    latest_version: int
    project_id: str
    created_at: str
    updated_at: str | None
    environment: dict[str, None]


class VersionView(msgspec.Struct):
    """A version of a function."""

    id: str
    description: str | None
    function_id: str
    version_number: int
    count: int
    project_id: str
    created_at: str
    updated_at: str | None


class AliasRouteView(msgspec.Struct):
    """A version that an alias leads to, and its weight."""

    function_version: int
    weight: int


class AliasView(msgspec.Struct):
    """An alias; routes is null where all calls go to function_version."""

    id: str
    name: str
    description: str | None
    function_id: str
    function_version: int
    project_id: str
    created_at: str
    updated_at: str | None
    routes: list[AliasRouteView] | None


class WorkerView(msgspec.Struct):
    """A worker of a function."""

    function_id: str
    function_version: int
    worker_name: str
    id: str
    state: str
    orchestrator: str
    reason: ReasonView | None
    created_at: str
    updated_at: str | None


class ExecutionView(msgspec.Struct):
    """An execution; input and result are strings that hold JSON."""

    id: str
    function_id: str
    function_version: int | None
    function_alias: str | None
    description: str | None
    status: str
    sync: bool
    input: str | None
    result: str | None
    project_id: str
    created_at: str
    updated_at: str | None
    reason: ReasonView | None
    phase: str
    attempts: int


class ErrorView(msgspec.Struct):
    """Every answer with a status of 400 or more."""

    faultstring: str
    faultcode: str
    debuginfo: None
    code: str
    message: str
    request_id: str


# -- writing answers -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _timestamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def timestamp(micros: int | None) -> str | None:
    """``YYYY-MM-DDTHH:MM:SSZ``, UTC, whole seconds (API.md section 1.5)."""
    return None if micros is None else _timestamp(micros // 1_000_000)


def _when(micros: int) -> str:
    return _timestamp(micros // 1_000_000)


def reason(code: str | None, message: str | None) -> ReasonView | None:
    return None if code is None else ReasonView(code, message or "")


def runtime(row: Runtime) -> RuntimeView:
    return RuntimeView(
        id=row.id,
        name=row.name,
        image=row.image,
        description=row.description,
        is_public=row.is_public,
        trusted=row.trusted,
        status=row.status,
        project_id=row.project_id,
        created_at=_when(row.created_at),
        updated_at=timestamp(row.updated_at),
        orchestrator=row.orchestrator,
        reason=reason(row.reason_code, row.reason_message),
    )


def pool(state: Pool) -> PoolView:
    return PoolView(state.name, PoolCapacity(state.total, state.available))


def functions(rows: Iterable[Sequence[Any]]) -> list[FunctionView]:
    """A list's rows, with the fields of `Function` in order; ``code`` is a string (API.md section 4.1).

    # PERF(rows): rows are taken apart by position; by name, a list of 1,000 takes 30 ms more.
    """
    return [
        FunctionView(
            key,
            name,
            description,
            cpu,
            memory_size,
            timeout,
            runtime_id,
            code,
            entry,
            count,
            latest_version,
            project_id,
            _when(created_at),
            timestamp(updated_at),
            _environment(environment),
        )
        for (
            key,
            name,
            description,
            cpu,
            memory_size,
            timeout,
            runtime_id,
            code,
            entry,
            count,
            latest_version,
            project_id,
            created_at,
            updated_at,
            environment,
        ) in rows
    ]


def _environment(text: str) -> dict[str, None]:
    return {} if text == "{}" else dict.fromkeys(json.loads(text))


def function(row: Function) -> FunctionView:
    """``code`` is an object, except in lists, where it is a string (API.md section 4.1)."""
    return FunctionView(
        id=row.id,
        name=row.name,
        description=row.description,
        cpu=row.cpu,
        memory_size=row.memory_size,
        timeout=row.timeout,
        runtime_id=row.runtime_id,
        code=msgspec.Raw(row.code.encode()),
        entry=row.entry,
        count=row.count,
        latest_version=row.latest_version,
        project_id=row.project_id,
        created_at=_when(row.created_at),
        updated_at=timestamp(row.updated_at),
        environment=_environment(row.environment),
    )


def version(row: Version) -> VersionView:
    fields = (row.id, row.description, row.function_id, row.version_number, row.count, row.project_id)
    return VersionView(*fields, _when(row.created_at), timestamp(row.updated_at))


def alias(row: Alias) -> AliasView:
    fields = (row.id, row.name, row.description, row.function_id, row.function_version, row.project_id)
    routes = None
    if row.routes is not None:
        routes = [AliasRouteView(route.function_version, route.weight) for route in row.shares()]
    return AliasView(*fields, _when(row.created_at), timestamp(row.updated_at), routes)


def worker(row: Any) -> WorkerView:
    return WorkerView(
        function_id=row.function_id,
        function_version=row.function_version,
        worker_name=row.id,
        id=row.id,
        state=row.state,
        orchestrator=row.orchestrator,
        reason=reason(row.reason_code, row.reason_message),
        created_at=_when(row.created_at),
        updated_at=timestamp(row.updated_at),
    )


def executions(rows: Iterable[Sequence[Any]]) -> list[ExecutionView]:
    """A list's rows, with the fields of `Execution` in order; see `functions`."""
    return [
        ExecutionView(
            id=key,
            function_id=function_id,
            function_version=version,
            function_alias=alias,
            description=description,
            status="running" if status in WAITING else status,
            sync=sync,
            input=given,
            result=result,
            project_id=project_id,
            created_at=_when(created_at),
            updated_at=timestamp(updated_at),
            reason=reason(code, message),
            phase=PHASES.get(status, "finished"),
            attempts=attempt,
        )
        for (
            key,
            function_id,
            version,
            alias,
            description,
            status,
            sync,
            given,
            result,
            code,
            message,
            project_id,
            created_at,
            updated_at,
            attempt,
        ) in rows
    ]


def execution(row: Execution | Record) -> ExecutionView:
    """``status`` has the old server's words; ``phase`` tells a queued execution from a running one."""
    status = row.status
    phase = PHASES.get(status, "finished")
    return ExecutionView(
        id=row.id,
        function_id=row.function_id,
        function_version=row.function_version,
        function_alias=row.function_alias,
        description=row.description,
        status="running" if status in WAITING else status,
        sync=row.sync,
        input=row.input,
        result=row.result,
        project_id=row.project_id,
        created_at=_when(row.created_at),
        updated_at=timestamp(row.updated_at),
        reason=reason(row.reason_code, row.reason_message),
        phase=phase,
        attempts=row.attempt,
    )

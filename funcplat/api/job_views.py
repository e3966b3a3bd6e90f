"""Jobs in answers."""

from __future__ import annotations

import msgspec

from funcplat.api import views
from funcplat.api.views import ReasonView
from funcplat.core.crons import UTC
from funcplat.core.jobs import Job


class JobView(msgspec.Struct):
    """A job."""

    id: str
    name: str | None
    function_id: str | None
    function_alias: str | None
    function_version: int | None
    function_input: str | None
    status: str
    pattern: str | None
    count: int | None
    first_execution_time: str | None
    next_execution_time: str | None
    project_id: str
    created_at: str | None
    updated_at: str | None
    time_zone: str
    missed_ticks: str
    reason: ReasonView | None


def job(row: Job) -> JobView:
    return JobView(
        id=row.id,
        name=row.name,
        function_id=row.function_id,
        function_alias=row.function_alias,
        function_version=row.function_version,
        function_input=row.function_input,
        status=row.status,
        pattern=row.pattern,
        count=row.count,
        first_execution_time=views.timestamp(row.first_execution_time),
        next_execution_time=views.timestamp(row.next_execution_time),
        project_id=row.project_id,
        created_at=views.timestamp(row.created_at),
        updated_at=views.timestamp(row.updated_at),
        time_zone=row.time_zone or UTC,
        missed_ticks=row.missed_ticks,
        reason=views.reason(row.reason_code, row.reason_message),
    )

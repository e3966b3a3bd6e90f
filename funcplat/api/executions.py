"""Executions on the wire (API.md section 8)."""

from __future__ import annotations

import asyncio
import time

import falcon
import falcon.asgi
import msgspec

from funcplat import errors
from funcplat.api import queries, schemas, views
from funcplat.api.middleware import Request, identity
from funcplat.api.resource import Desk, Resource, check_uuid, respond, respond_list
from funcplat.auth.base import Identity
from funcplat.core import executions as core
from funcplat.core import inputs, retries
from funcplat.core.executions import Record
from funcplat.core.idempotency import Key
from funcplat.invoke.router import Line

MAX_WAIT = 30.0
"""Seconds that a request for a log may wait for more of it."""
LOG_POLL = 0.1
"""Seconds between looks at a running execution's log."""


class Executions(Resource):
    """/v1/executions"""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._max_input = int(desk.services.conf.resource_limits.max_input)

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists executions."""
        self.policy.check("execution:list", identity(req))
        listing = self.listing(req, core.FILTERS, "execution:list:all_projects")
        rows = await self.run(self.services.executions.list, identity(req), listing)
        respond_list(req, resp, "executions", views.executions(rows), listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Calls a function: with ``sync`` the answer holds the result, else it comes at once."""
        key = req.get_header("Idempotency-Key")
        body = await self.body(req)
        resp.data = await self.create(identity(req), body, None if key is None else key.encode("latin-1"))
        resp.status = 201
        resp.content_type = falcon.MEDIA_JSON

    async def create(self, caller: Identity, data: bytes, key: bytes | None = None) -> bytes:
        """The same for a body as it came; returns the body of the answer (status 201).

        ``key``: the header Idempotency-Key.
        """
        self.policy.check("execution:create", caller)
        body = schemas.decode(data, schemas.CreateExecution)
        if key is not None:
            return await self._create_once(caller, body, Key.of(caller.project_id, key, data))
        return await self._begin(await self._line(caller, body), self._record(caller, body))

    async def _create_once(self, caller: Identity, body: schemas.CreateExecution, key: Key) -> bytes:
        found: str | None = await self.run(self.services.idempotency.find, key)
        if found is None:
            line, record = await self._line(caller, body), self._record(caller, body)
            found = await self.run(self.services.idempotency.make, key, record)
            if found == record.id:
                return await self._begin(line, record)
        return await self._replay(caller, found)

    async def _replay(self, caller: Identity, execution_id: str) -> bytes:
        """The execution of an earlier request: a synchronous one when it has ended."""
        until = time.monotonic() + MAX_WAIT
        execution = await self.run(self.services.executions.get, caller, execution_id)
        while execution.sync and execution.status in core.UNFINISHED:
            if time.monotonic() > until:
                raise errors.Conflict(
                    f"Execution {execution_id} of this Idempotency-Key has not ended: ask again later."
                )
            # Perhaps another server runs it: there is no event to wait for.
            await asyncio.sleep(LOG_POLL)
            execution = await self.run(self.services.executions.get, caller, execution_id)
        return msgspec.json.encode(views.execution(execution))

    async def _begin(self, line: Line, record: Record) -> bytes:
        if record.sync:
            await self.invocation.calls.run(line, record)
        else:
            if not record.inserted:
                await self.invocation.calls.accept(record)
            self.desk.queued()
        return msgspec.json.encode(views.execution(record))

    async def _line(self, caller: Identity, body: schemas.CreateExecution) -> Line:
        if body.function_alias is not None:
            line = await self._line_of_alias(caller.project_id, body.function_alias)
            body.function_id, body.function_version = line.route.function_id, line.route.version
        elif body.function_id is not None:
            body.function_id = check_uuid(body.function_id)
            line = await self._line_of_version(caller, body.function_id, body.function_version or 0)
        else:
            raise errors.InvalidRequest('Either "function_id" or "function_alias" must be specified.')
        if line.route.runtime_status != "available":
            raise errors.RuntimeNotAvailable(f"Runtime {line.route.runtime_id} is not available.")
        return line

    async def _line_of_version(self, caller: Identity, function_id: str, version: int) -> Line:
        router = self.invocation.router
        try:
            line = await router.line(function_id, version)
        except errors.NotFound:
            # Whether the function exists, and lacks the version, is not for other projects to know.
            if version != 0:
                own = await router.line(function_id, 0)
                _check_visible(caller, own)
                if own.route.image is not None:
                    raise errors.InvalidRequest(errors.NotVersionable().message) from None
            raise
        _check_visible(caller, line)
        return line

    async def _line_of_alias(self, project_id: str, name: str) -> Line:
        aliases, router = self.invocation.aliases, self.invocation.router
        target = await aliases.resolve(project_id, name)
        try:
            return await router.line(target.function_id, target.version)
        except errors.NotFound:
            # Within the second that an alias is remembered it was led elsewhere, and its version deleted.
            aliases.changed(project_id, name)
            target = await aliases.resolve(project_id, name)
            return await router.line(target.function_id, target.version)

    def _record(self, caller: Identity, body: schemas.CreateExecution) -> Record:
        sync = body.sync is not False
        if sync and body.retry is not None:
            raise errors.InvalidRequest("retry is for asynchronous executions: it needs sync = false.")
        return Record(
            id=core.new_id(),
            function_id=body.function_id or "",
            function_version=body.function_version or 0,
            function_alias=body.function_alias,
            description=body.description,
            status="running" if sync else "queued",
            sync=sync,
            input=inputs.normalised(body.input, self._max_input),
            result=None,
            reason_code=None,
            reason_message=None,
            project_id=caller.project_id,
            worker_id=None,
            attempt=1 if sync else 0,
            server_id=self.services.server_id if sync else None,
            created_at=time.time_ns() // 1000,
            updated_at=None,
            retry=_retry(body.retry),
        )


class Execution(Resource):
    """/v1/executions/{execution_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, execution_id: str) -> None:
        """Shows an execution."""
        self.policy.check("execution:get", identity(req))
        execution = await self.run(self.services.executions.get, identity(req), check_uuid(execution_id))
        respond(resp, views.execution(execution))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, execution_id: str) -> None:
        """Deletes an execution; one that runs goes on, and its result is dropped."""
        self.policy.check("execution:delete", identity(req))
        await self.run(self.services.interventions.delete, identity(req), check_uuid(execution_id))
        resp.status = 204


class Cancel(Resource):
    """/v1/executions/{execution_id}/cancel"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, execution_id: str) -> None:
        """Ends an execution: at once where it waits, within a moment where it runs."""
        self.policy.check("execution:cancel", identity(req))
        cancel = self.services.interventions.cancel
        respond(resp, views.execution(await self.run(cancel, identity(req), check_uuid(execution_id))))


class Redrive(Resource):
    """/v1/executions/{execution_id}/redrive"""

    async def on_post(self, req: Request, resp: falcon.asgi.Response, execution_id: str) -> None:
        """Queues an execution again that was given up."""
        self.policy.check("dead_letter:redrive", identity(req))
        redrive = self.services.interventions.redrive_one
        execution = await self.run(redrive, identity(req), check_uuid(execution_id))
        self.desk.queued()
        respond(resp, views.execution(execution))


class ExecutionLog(Resource):
    """/v1/executions/{execution_id}/log"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, execution_id: str) -> None:
        """Shows what the function wrote, as text; of a running one, what it has written so far.

        As additions ``offset`` skips bytes, ``wait`` waits up to so many seconds for more, and the headers
        X-Log-Offset and X-Log-Complete say where the next request goes on and whether there may be more.
        """
        self.policy.check("execution:log", identity(req))
        query = queries.single(req.params)
        offset = queries.integer("offset", query.get("offset", "0"))
        if offset < 0:
            raise errors.InvalidRequest("offset must not be negative.")
        until = time.monotonic() + min(MAX_WAIT, queries.integer("wait", query.get("wait", "0")))
        text, complete = await self._log(identity(req), check_uuid(execution_id))
        while not complete and len(text) <= offset and time.monotonic() < until:
            # The worker is another process, perhaps on another machine: there is no event to wait for.
            await asyncio.sleep(LOG_POLL)
            text, complete = await self._log(identity(req), execution_id)
        resp.content_type = "text/plain; charset=UTF-8"
        resp.data = text[offset:].decode("utf-8", "replace").encode()
        resp.set_header("X-Log-Offset", str(max(offset, len(text))))
        resp.set_header("X-Log-Complete", "true" if complete else "false")

    async def _log(self, caller: Identity, execution_id: str) -> tuple[bytes, bool]:
        execution, log = await self.run(self.services.executions.log, caller, execution_id)
        start = f"Start execution: {execution_id}\n".encode()
        if execution.status not in core.UNFINISHED:
            return start + log + _end(execution, log), True
        live = await self.invocation.calls.live_log(execution_id, 0)
        return start + (live or b""), False


def _check_visible(caller: Identity, line: Line) -> None:
    if line.route.project_id != caller.project_id and not caller.is_admin:
        raise errors.NotFound(f"Function not found [id={line.route.function_id}]")


def _end(execution: core.Execution, log: bytes) -> bytes:
    # The old server's worker wrote these lines itself, and could not after a timeout.
    if execution.reason_code == errors.ReasonCode.TIMEOUT:
        return b""
    newline = b"" if not log or log.endswith(b"\n") else b"\n"
    return newline + f"Finished execution: {execution.id}\n".encode()


def _retry(wanted: schemas.Retry | None) -> str | None:
    return None if wanted is None else retries.Retry(wanted.max_attempts, wanted.delay).text()

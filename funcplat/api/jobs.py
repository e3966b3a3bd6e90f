"""Jobs on the wire (API.md section 9)."""

from __future__ import annotations

import falcon.asgi

from funcplat.api import job_views, schemas
from funcplat.api.middleware import Request, identity
from funcplat.api.operation import PAGE_QUERY, PROJECT_QUERY, Operation
from funcplat.api.resource import Resource, check_uuid, respond, respond_list
from funcplat.core import jobs as core
from funcplat.core.targets import Reference

JOBS, JOB = "/v1/jobs", "/v1/jobs/{job_id}"
OPERATIONS = (
    Operation(
        "get",
        JOBS,
        "List jobs",
        200,
        job_views.JobView,
        "jobs",
        query=(*core.FILTERS, *PROJECT_QUERY, *PAGE_QUERY),
    ),
    Operation(
        "post",
        JOBS,
        "Make a job",
        201,
        job_views.JobView,
        body=schemas.CreateJob,
        errors=(404,),
    ),
    Operation("get", JOB, "Show a job", 200, job_views.JobView, errors=(404,)),
    Operation(
        "put",
        JOB,
        "Change, pause, resume or cancel a job",
        200,
        job_views.JobView,
        body=schemas.UpdateJob,
        errors=(404,),
    ),
    Operation("delete", JOB, "Delete a job", 204, errors=(404,)),
)


class Jobs(Resource):
    """/v1/jobs"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Lists jobs."""
        self.policy.check("job:list", identity(req))
        listing = self.listing(req, core.FILTERS, "job:list:all_projects")
        rows = await self.run(self.services.jobs.list, identity(req), listing)
        respond_list(req, resp, "jobs", [job_views.job(row) for row in rows], listing)

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Makes a job, which runs from its first tick on."""
        self.policy.check("job:create", identity(req))
        body = schemas.decode(await self.body(req), schemas.CreateJob)
        new = core.NewJob(
            reference=Reference(
                None if body.function_id is None else check_uuid(body.function_id),
                body.function_version,
                body.function_alias,
            ),
            name=body.name,
            pattern=body.pattern,
            time_zone=body.time_zone,
            first_execution_time=body.first_execution_time,
            count=body.count,
            function_input=body.function_input,
            missed_ticks=body.missed_ticks,
        )
        job = await self.run(self.services.jobs.create, identity(req), new)
        self.desk.scheduled()
        respond(resp, job_views.job(job), 201)


class Job(Resource):
    """/v1/jobs/{job_id}"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Shows a job."""
        self.policy.check("job:get", identity(req))
        job = await self.run(self.services.jobs.get, identity(req), check_uuid(job_id))
        respond(resp, job_views.job(job))

    async def on_put(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Changes, pauses, resumes or cancels a job."""
        self.policy.check("job:update", identity(req))
        body = schemas.decode(await self.body(req), schemas.UpdateJob)
        changes = core.Changes(
            name=body.name,
            status=body.status,
            pattern=body.pattern,
            time_zone=body.time_zone,
            next_execution_time=body.next_execution_time,
            function_input=body.function_input,
            missed_ticks=body.missed_ticks,
        )
        job = await self.run(self.services.jobs.update, identity(req), check_uuid(job_id), changes)
        self.desk.scheduled()
        respond(resp, job_views.job(job))

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Deletes a job; the executions that it made stay."""
        self.policy.check("job:delete", identity(req))
        await self.run(self.services.jobs.delete, identity(req), check_uuid(job_id))
        resp.status = 204

"""The last python-qinlingclient, unchanged: jobs and webhooks."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tests.functional.platform import until
from tests.integration import test_qinlingclient
from tests.integration.test_qinlingclient import FUNCTIONS, RUNTIMES, SESSION_CLIENT, TOKEN_CLIENT

JOBS = """
from qinlingclient.common import exceptions as e
jobs = qinling.jobs
job = jobs.create(function_id=function.id, pattern="0 0 1 1 *", name="j", function_input='{"name": "Ann"}')
assert (job.status, job.name, job.pattern, job.count) == ("running", "j", "0 0 1 1 *", None), job
assert job.next_execution_time == job.first_execution_time
assert [each.id for each in jobs.list()] == [job.id]
assert jobs.get(job.id).function_input == '{"name": "Ann"}'
assert jobs.update(job.id, status="paused").status == "paused"
assert jobs.update(job.id, status="running", name="k").name == "k"
soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
once = jobs.create(function_id=function.id, first_execution_time=soon)
assert (once.count, once.next_execution_time) == (1, soon), once
quick = jobs.create(function_id=function.id, pattern="* * * * * *", count=1)
until(lambda: jobs.get(quick.id).status == "done")
made = qinling.function_executions.list(description="Created by Job " + quick.id)
assert len(made) == 1, made
assert "in use" in fails(e.HTTPForbidden, qinling.functions.delete, function.id)
assert "cron" in fails(e.HTTPBadRequest, jobs.create, function_id=function.id, pattern="sometimes")
assert "60 seconds" in fails(e.HTTPBadRequest, jobs.create, function_id=function.id,
                             first_execution_time="2000-01-01")
assert "done" in fails(e.HTTPBadRequest, jobs.update, quick.id, name="x")
assert jobs.update(job.id, status="cancelled").status == "cancelled"
for each in (job, once, quick):
    jobs.delete(each.id)
assert "Job not found" in fails(e.HTTPNotFound, jobs.get, job.id)
assert jobs.list() == []
"""
WEBHOOKS = """
import json, urllib.request
webhooks = qinling.webhooks
webhook = webhooks.create(function_id=function.id, function_version=0, description="d")
assert (webhook.function_id, webhook.function_version, webhook.description) == (function.id, 0, "d"), webhook
assert [each.id for each in webhooks.list()] == [webhook.id]
assert webhooks.get(webhook.id).webhook_url == webhook.webhook_url
call = urllib.request.Request(webhook.webhook_url, data=b'{"name": "Bo"}',
                              headers={"Content-Type": "application/json"})
with urllib.request.urlopen(call) as answer:
    assert answer.status == 202
    execution = json.load(answer)["execution_id"]
until(lambda: qinling.function_executions.get(execution).status == "success")
assert "Hello, Bo!" in qinling.function_executions.get(execution).result
assert webhooks.update(webhook.id, description="e").description == "e"
assert "in use" in fails(e.HTTPForbidden, qinling.functions.delete, function.id)
webhooks.delete(webhook.id)
assert "Webhook not found" in fails(e.HTTPNotFound, webhooks.get, webhook.id)
qinling.functions.delete(function.id)
"""


class PythonTests(test_qinlingclient.ClientTest):
    def test_the_client_with_a_session(self) -> None:
        self.run_python(SESSION_CLIENT, RUNTIMES, FUNCTIONS, JOBS, WEBHOOKS)

    def test_the_client_with_a_token(self) -> None:
        self.run_python(TOKEN_CLIENT, RUNTIMES, FUNCTIONS, JOBS, WEBHOOKS)


class CommandTests(test_qinlingclient.CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.runtime()
        words = ("function", "create", "--name", "f", "--runtime", "python", "--package", str(self.package))
        self.made = self.parsed(*words)["id"]
        self.alias = {"name": "live", "function_id": self.made}

    def found(self, thing: dict[str, Any], **expected: Any) -> str:
        self.assertEqual(expected, {name: thing[name] for name in expected})
        return str(thing["id"])

    def test_jobs(self) -> None:
        created = self.parsed(
            *("job", "create", "--function", "f", "--pattern", "0 9 * * *", "--name", "j"),
            *("--function-input", '{"name": "Ann"}', "--count", "5"),
        )
        job = self.found(created, function_id=self.made, pattern="0 9 * * *", count=5, status="running")
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        once = self.parsed("job", "create", "--function", self.made, "--first-execution-time", moment)
        self.found(once, next_execution_time=moment, count=1)
        self.assertEqual([job, once["id"]], [row["Id"] for row in self.parsed("job", "list")])
        self.found(self.parsed("job", "show", job), name="j", function_input='{"name": "Ann"}')
        self.found(self.parsed("job", "update", job, "--name", "k", "--status", "paused"), name="k")
        changed = self.parsed(
            *("job", "update", job, "--pattern", "0 8 * * *", "--next-execution-time", moment),
            *("--function-input", "x", "--status", "running"),
        )
        self.found(
            changed, pattern="0 8 * * *", next_execution_time=moment, function_input="x", status="running"
        )
        refused = self.openstack("job", "update", job, "--status", "done")
        self.assertEqual(1, refused.returncode)
        self.assertIn("status can be set to", refused.stdout + refused.stderr)
        self.found(self.parsed("job", "update", job, "--status", "cancelled"), status="cancelled")
        for each in (job, once["id"]):
            self.succeed("job", "delete", each)
        self.assertEqual(1, self.openstack("job", "show", job).returncode)

    def test_jobs_and_webhooks_by_alias(self) -> None:
        self.assertEqual(201, self.server.admin.post("/v1/aliases", self.alias).status_code)
        job = self.parsed("job", "create", "--function-alias", "live", "--pattern", "@daily")
        self.found(job, function_alias="live", function_id=None)
        webhook = self.parsed("webhook", "create", "--function-alias", "live")
        self.found(webhook, function_alias="live", function_id=None, function_version=None)
        refused = self.openstack("function", "alias", "delete", "live")
        self.assertIn("in use", refused.stdout + refused.stderr)
        self.succeed("job", "delete", job["id"])
        self.succeed("webhook", "delete", webhook["id"])
        self.succeed("function", "alias", "delete", "live")

    def test_webhooks(self) -> None:
        created = self.parsed("webhook", "create", "--function", "f", "--description", "d")
        webhook = self.found(created, function_id=self.made, description="d")
        self.assertEqual([webhook], [row["Id"] for row in self.parsed("webhook", "list")])
        listed = self.parsed("webhook", "list", "--filter", "all_projects=true")
        self.assertEqual([webhook], [row["Id"] for row in listed])
        shown = self.parsed("webhook", "show", webhook)
        path = shown["webhook_url"].removeprefix(self.server.endpoint)
        answer = self.server.admin.post(path, {"name": "Bo"})
        execution = f"/v1/executions/{answer.json()['execution_id']}"
        until(lambda: self.server.admin.get(execution).json()["status"] == "success", "it has ended")
        words = ("--function-id", self.made, "--function-version", "0", "--description", "e")
        self.found(self.parsed("webhook", "update", webhook, *words), description="e", function_version=0)
        self.succeed("webhook", "delete", webhook)
        self.assertEqual(1, self.openstack("webhook", "show", webhook).returncode)
        self.assertEqual(1, self.openstack("webhook", "delete", str(uuid.uuid4())).returncode)

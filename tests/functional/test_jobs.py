"""Jobs over HTTP (API.md section 9)."""

from __future__ import annotations

import time
import uuid
from typing import Any

import hypothesis
from hypothesis import strategies as st

from tests.functional import test_any_request
from tests.functional.platform import Api, ApiTest, until

FIELDS = {
    "id",
    "name",
    "function_id",
    "function_alias",
    "function_version",
    "function_input",
    "status",
    "pattern",
    "count",
    "first_execution_time",
    "next_execution_time",
    "project_id",
    "created_at",
    "updated_at",
}
ADDED = {"time_zone", "missed_ticks", "reason"}
YEARLY = "0 0 1 1 *"


def in_seconds(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


class JobsTest(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.function = self.create()

    def job(self, api: Api | None = None, **fields: Any) -> dict[str, Any]:
        fields.setdefault("function_id", self.function["id"])
        if "first_execution_time" not in fields:
            fields.setdefault("pattern", YEARLY)
        made: dict[str, Any] = self.ok(201, (api or self.api).post("/v1/jobs", fields))
        return made

    def runs(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok(
            200, self.api.get("/v1/executions", description=f"Created by Job {job['id']}")
        )["executions"]
        return found


class JobsTests(JobsTest):
    def test_a_job_has_all_fields_of_the_wire(self) -> None:
        job = self.job(name="n", function_input='{"name": "Ann"}', count="3")
        self.assertEqual(FIELDS | ADDED, set(job))
        expected = {
            "name": "n",
            "function_id": self.function["id"],
            "function_alias": None,
            "function_version": 0,
            "function_input": '{"name": "Ann"}',
            "status": "running",
            "pattern": YEARLY,
            "count": 3,
            "project_id": self.project,
            "updated_at": None,
            "time_zone": "UTC",
            "missed_ticks": "once",
            "reason": None,
        }
        self.assertEqual(expected, {name: job[name] for name in expected})
        self.assertRegex(job["next_execution_time"], r"^20\d\d-01-01T00:00:00Z$")
        self.assertEqual(job["first_execution_time"], job["next_execution_time"])
        self.assertEqual(job, self.ok(200, self.api.get(f"/v1/jobs/{job['id']}")))
        self.assertEqual([job], self.ok(200, self.api.get("/v1/jobs"))["jobs"])

    def test_what_a_client_sends_for_everything_unset_is_null(self) -> None:
        unset = dict.fromkeys(("name", "function_alias", "function_version", "function_input", "count"))
        for more in ({"pattern": None, "first_execution_time": in_seconds(90)}, {"pattern": YEARLY}):
            self.job(**unset, **more, status=None)
        self.job(status="paused")
        self.assertEqual({"running"}, {job["status"] for job in self.api.get("/v1/jobs").json()["jobs"]})

    def test_a_job_that_runs_once(self) -> None:
        moment = in_seconds(3600)
        job = self.job(first_execution_time=moment)
        self.assertEqual((moment, moment), (job["first_execution_time"], job["next_execution_time"]))
        self.assertEqual((None, 1), (job["pattern"], job["count"]))

    def test_every_tick_runs_the_function_and_the_last_one_ends_the_job(self) -> None:
        job = self.job(pattern="* * * * * *", count=2, function_input='{"name": "Ann"}')
        path = f"/v1/jobs/{job['id']}"
        ended = until(
            lambda: (shown := self.api.get(path).json())["status"] == "done" and shown, "the job is done"
        )
        self.assertEqual((0, None), (ended["count"], ended["reason"]))
        self.assertEqual(2, len(self.runs(job)))
        for run in [self.finished(each) for each in self.runs(job)]:
            self.assertEqual("Hello, Ann!", self.output(run))
            self.assertEqual((False, self.project), (run["sync"], run["project_id"]))
        self.refused(400, "invalid_request", self.api.put(path, {"name": "x"}), "done")
        self.ok(204, self.api.delete(path))
        self.assertEqual(2, len(self.runs(job)))

    def test_pausing_resuming_and_cancelling(self) -> None:
        path = f"/v1/jobs/{self.job()['id']}"
        for status in ("paused", "paused", "running", "running", "cancelled"):
            self.assertEqual(status, self.ok(200, self.api.put(path, {"status": status}))["status"])
        self.refused(400, "invalid_request", self.api.put(path, {"status": "running"}), "cancelled")

    def test_changes(self) -> None:
        job = self.job()
        path = f"/v1/jobs/{job['id']}"
        body = {"name": "m", "function_input": "x", "pattern": "0 0 2 1 *", "missed_ticks": "skip"}
        changed = self.ok(200, self.api.put(path, body))
        self.assertEqual(body, {name: changed[name] for name in body})
        self.assertEqual(job["next_execution_time"], changed["next_execution_time"])
        moment = in_seconds(7200)
        changed = self.ok(200, self.api.put(path, {"next_execution_time": moment, "status": None}))
        self.assertEqual(moment, changed["next_execution_time"])
        ignored = {"function_id": str(uuid.uuid4()), "count": 7, "function_version": 3, "function_alias": "x"}
        self.assertEqual(self.function["id"], self.ok(200, self.api.put(path, ignored))["function_id"])

    def test_bad_input_is_400_and_says_what_is_wrong(self) -> None:
        function = self.function["id"]
        for body, word in (
            ({"pattern": YEARLY}, "function_id"),
            ({"function_id": function}, "first_execution_time"),
            ({"function_id": "abc", "pattern": YEARLY}, "uuid"),
            ({"function_id": function, "pattern": "every day"}, "cron"),
            ({"function_id": function, "pattern": "R * * * *"}, "cron"),
            ({"function_id": function, "pattern": "* " * 200}, "255"),
            ({"function_id": function, "pattern": "0 0 31 2 *"}, "50 years"),
            ({"function_id": function, "pattern": YEARLY, "time_zone": "localtime"}, "time_zone"),
            ({"function_id": function, "pattern": YEARLY, "count": 0}, "count"),
            ({"function_id": function, "pattern": YEARLY, "count": -1}, "count"),
            ({"function_id": function, "pattern": YEARLY, "count": "x"}, "count"),
            ({"function_id": function, "first_execution_time": in_seconds(90), "count": 2}, "count"),
            ({"function_id": function, "first_execution_time": in_seconds(30)}, "60 seconds"),
            ({"function_id": function, "first_execution_time": "tomorrow"}, "cannot be read"),
            ({"function_id": function, "first_execution_time": "9999-12-31", "pattern": YEARLY}, "read"),
            ({"function_id": function, "pattern": YEARLY, "function_input": {"a": 1}}, "function_input"),
            ({"function_id": function, "pattern": YEARLY, "missed_ticks": "all"}, "once"),
            ({"function_id": function, "pattern": YEARLY, "name": "x" * 256}, "255"),
            ({"function_id": function, "pattern": YEARLY, "project_id": "x"}, "read only"),
            ({"function_id": function, "pattern": YEARLY, "colour": "x"}, "Unknown attribute"),
            ({"function_id": function, "pattern": YEARLY, "function_version": -1}, "function_version"),
        ):
            self.refused(400, "invalid_request", self.api.post("/v1/jobs", body), word)
        self.refused(400, "invalid_request", self.api.post("/v1/jobs"), "Missing argument")
        self.refused(400, "invalid_request", self.api.get("/v1/jobs", colour="x"), "Unknown argument")
        self.refused(400, "invalid_request", self.api.get("/v1/jobs/abc"), "uuid")
        self.assertEqual([], self.api.get("/v1/jobs").json()["jobs"])

    def test_what_does_not_exist_or_is_anothers_is_404(self) -> None:
        _, other = self.member()
        job = self.job()
        path = f"/v1/jobs/{job['id']}"
        for answer in (other.get(path), other.put(path, {"name": "x"}), other.delete(path)):
            self.refused(404, "not_found", answer, "Job not found")
        self.refused(404, "not_found", self.api.get(f"/v1/jobs/{uuid.uuid4()}"), "Job not found")
        for body in (
            {"function_id": str(uuid.uuid4())},
            {"function_alias": "no-such"},
            {"function_id": self.function["id"], "function_version": 1},
        ):
            self.refused(404, "not_found", self.api.post("/v1/jobs", {"pattern": YEARLY, **body}))
        body = {"function_id": self.function["id"], "pattern": YEARLY}
        self.refused(404, "not_found", other.post("/v1/jobs", body), "Function not found")
        self.assertEqual([], other.get("/v1/jobs").json()["jobs"])

    def test_admins(self) -> None:
        job = self.job()
        own = self.job(api=self.admin)
        self.assertEqual("admins", own["project_id"])
        self.assertEqual(job, self.ok(200, self.admin.get(f"/v1/jobs/{job['id']}")))
        listed = self.ok(200, self.admin.get("/v1/jobs", project_id=self.project))["jobs"]
        self.assertEqual([job], listed)
        everything = self.ok(200, self.admin.get("/v1/jobs", all_projects="true"))["jobs"]
        self.assertLessEqual({job["id"], own["id"]}, {each["id"] for each in everything})
        self.refused(403, "forbidden", self.api.get("/v1/jobs", all_projects="true"))
        self.ok(204, self.admin.delete(f"/v1/jobs/{job['id']}"))

    def test_lists_are_filtered_and_paged(self) -> None:
        jobs = [self.job(name=name) for name in ("a", "b", "c")]
        self.ok(200, self.api.put(f"/v1/jobs/{jobs[1]['id']}", {"status": "paused"}))
        listed = self.ok(200, self.api.get("/v1/jobs", status="paused"))["jobs"]
        self.assertEqual(["b"], [job["name"] for job in listed])
        page = self.ok(200, self.api.get("/v1/jobs", limit=2))
        rest = self.ok(200, self.api.get(page["next"]))["jobs"]
        self.assertEqual(["a", "b", "c"], [job["name"] for job in page["jobs"] + rest])

    def test_a_function_with_a_job_is_protected_until_the_job_is_over(self) -> None:
        path, job = f"/v1/functions/{self.function['id']}", self.job()
        self.refused(403, "in_use", self.api.delete(path), job["id"])
        self.refused(403, "in_use", self.api.put(path, data={"cpu": "500"}), job["id"])
        self.ok(200, self.api.put(path, data={"name": "n", "timeout": "9"}))
        self.ok(200, self.api.put(f"/v1/jobs/{job['id']}", {"status": "cancelled"}))
        self.ok(204, self.api.delete(path))
        self.assertEqual("cancelled", self.ok(200, self.api.get(f"/v1/jobs/{job['id']}"))["status"])
        self.ok(204, self.api.delete(f"/v1/jobs/{job['id']}"))


class AnyJobTests(JobsTest):
    def test_no_body_is_a_500(self) -> None:
        names = st.sampled_from(sorted(FIELDS | ADDED | {"x"}))
        values = test_any_request.JSON | st.sampled_from(
            [YEARLY, "* * * * *", "@hourly", "2030-01-31", in_seconds(99), "running", "paused", "once", "UTC"]
        )
        path = f"/v1/jobs/{self.job()['id']}"

        @test_any_request.SETTINGS
        @hypothesis.given(st.booleans(), st.dictionaries(names, values, max_size=6))
        def send(new: bool, body: dict[str, Any]) -> None:
            if new:
                body.setdefault("function_id", self.function["id"])
                made = self.api.post("/v1/jobs", content=test_any_request.written(body))
                if made.status_code == 201:
                    self.api.delete(f"/v1/jobs/{made.json()['id']}")
            else:
                self.api.put(path, content=test_any_request.written(body))

        send()
        self.ok(200, self.api.get("/v1/jobs"))

"""Asynchronous executions over HTTP: retries, cancellation, dead letters, idempotency keys, counts."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import pathlib
import tempfile
import time
import uuid
from typing import Any, ClassVar

from tests.functional.platform import ApiTest, token_of, until

SLEEP = """
    import subprocess, time
    def main(seconds=0.0, value=None, child=False):
        if child:
            print("child", subprocess.Popen(["sleep", "100.125"]).pid, flush=True)
        time.sleep(seconds)
        return value
"""
FLAKY = """
    def main(until):
        # Handlers are used again, and a failed attempt leaves them as they are.
        global count
        count = globals().get("count", 0) + 1
        print("attempt", count)
        if count < until:
            raise ValueError("not yet")
        return count
"""
BOOM = "def main(): raise ValueError('always')"
DEAD = {"max_attempts": 2, "delay": 0}
"""A retry that makes what always fails a dead letter."""


def sleeping() -> list[int]:
    """Processes like the child, whose number in its own namespace is not that of this one."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == b"sleep\x00100.125\x00":
                found.append(int(path.parent.name))
    return found


class DurableTest(ApiTest):
    options: ClassVar = {
        "engine": {"poll_interval": 0.05, "reap_interval": 0.5, "retry_delay": 0.1, "max_attempts": 2},
        "resource_limits": {"max_cpu": 2000, "default_cpu": 1000, "max_timeout": 300},
        "scaling": {"concurrency": 1, "max_workers_per_function": 1},
    }

    def start(self, function: dict[str, Any], **more: Any) -> dict[str, Any]:
        started: dict[str, Any] = self.execute(function, sync=False, **more)
        return started

    def shown(self, execution: dict[str, Any]) -> Any:
        return self.ok(200, self.api.get(f"/v1/executions/{execution['id']}"))

    def runs(self, execution: dict[str, Any]) -> None:
        until(lambda: self.shown(execution)["phase"] == "running", "it runs")

    def reason(self, execution: dict[str, Any]) -> Any:
        return execution["reason"] and execution["reason"]["code"]

    def dead(self, **more: Any) -> dict[str, Any]:
        """A dead letter."""
        ended = self.finished(self.start(self.create(BOOM), retry=DEAD, **more))
        self.assertEqual(("failed", "function_raised"), (ended["status"], self.reason(ended)))
        return ended

    def letters(self, **query: Any) -> list[str]:
        answer = self.ok(200, self.api.get("/v1/dead_letters", **query))
        return [each["id"] for each in answer["dead_letters"]]


class RetryTests(DurableTest):
    def test_a_function_that_fails_is_run_again_where_its_caller_asks_for_it(self) -> None:
        started = self.start(self.create(FLAKY), input={"until": 3}, retry={"max_attempts": 5, "delay": 0.01})
        self.assertEqual((0, "queued"), (started["attempts"], started["phase"]))
        ended = self.finished(started)
        self.assertEqual(("success", 3), (ended["status"], ended["attempts"]))
        self.assertEqual([], self.letters())

    def test_while_it_waits_for_its_next_attempt_it_says_why(self) -> None:
        started = self.start(self.create(BOOM), retry={"max_attempts": 2, "delay": 100})
        until(lambda: self.shown(started)["reason"], "the first attempt has failed")
        shown = self.shown(started)
        self.assertEqual(("running", "queued", 1), (shown["status"], shown["phase"], shown["attempts"]))
        self.assertEqual(("function_raised", None), (self.reason(shown), shown["result"]))
        self.assertIn(shown["id"], [each["id"] for each in self.listed(status="running")])

    def listed(self, **query: Any) -> Any:
        return self.ok(200, self.api.get("/v1/executions", **query))["executions"]

    def test_by_default_it_is_run_once(self) -> None:
        ended = self.finished(self.start(self.create(BOOM)))
        self.assertEqual(("failed", 1), (ended["status"], ended["attempts"]))
        self.assertEqual([], self.letters())

    def test_what_cannot_be_asked_is_400(self) -> None:
        function = self.create()
        for retry in ({}, {"max_attempts": 0}, {"max_attempts": 101}, {"max_attempts": 2, "delay": -1}, 3):
            body = {"function_id": function["id"], "sync": False, "retry": retry}
            self.refused(400, "invalid_request", self.api.post("/v1/executions", body))
        body = {"function_id": function["id"], "retry": DEAD}
        self.refused(400, "invalid_request", self.api.post("/v1/executions", body), "sync")


class CancelTests(DurableTest):
    def cancel(self, execution: dict[str, Any]) -> Any:
        return self.api.post(f"/v1/executions/{execution['id']}/cancel")

    def test_a_queued_one_ends_at_once_and_never_runs(self) -> None:
        function = self.create(SLEEP, timeout=60)
        first, second = (self.start(function, input={"seconds": 1}) for _ in range(2))
        third = self.start(self.create(BOOM), retry={"max_attempts": 2, "delay": 100})
        until(lambda: self.shown(third)["reason"], "the first attempt has failed")
        ended = self.ok(200, self.cancel(third))
        self.assertEqual(("failed", "cancelled", "finished"), (*self.outcome(ended), ended["phase"]))
        self.assertEqual("Function execution cancelled.", json.loads(ended["result"])["output"])
        self.assertEqual("success", self.finished(first)["status"])
        self.assertEqual("success", self.finished(second)["status"])

    def outcome(self, execution: dict[str, Any]) -> tuple[Any, Any]:
        return execution["status"], self.reason(execution)

    def test_a_running_one_is_killed_within_a_moment_with_all_that_it_started(self) -> None:
        function = self.create(SLEEP, timeout=300)
        started = self.start(function, input={"seconds": 250, "child": True})
        path = f"/v1/executions/{started['id']}/log"
        until(lambda: "child" in self.api.get(path).text, "it has started a child")
        before = set(sleeping())
        began = time.monotonic()
        self.assertEqual("running", self.ok(200, self.cancel(started))["status"])
        ended = self.finished(started)
        self.assertLess(time.monotonic() - began, 3.0)
        self.assertEqual(("failed", "cancelled"), self.outcome(ended))
        self.assertIn("child", self.api.get(path).text)
        until(lambda: len(set(sleeping()) & before) < len(before), "the child is killed")
        self.assertEqual([], self.letters())
        # Its worker had one place: the next call has it.
        self.assertEqual(7, self.output(self.execute(function, input={"value": 7})))

    def test_one_that_waits_for_a_worker_ends_too(self) -> None:
        function = self.create(SLEEP, timeout=60)
        started = [self.start(function, input={"seconds": 20}) for _ in range(2)]
        for each in started:
            self.runs(each)  # claimed, though there is a place for one of them
        for each in started:
            self.ok(200, self.cancel(each))
        for each in started:
            self.assertEqual(("failed", "cancelled"), self.outcome(self.finished(each)))

    def test_a_synchronous_one_is_answered_so(self) -> None:
        function = self.create(SLEEP, timeout=60)
        other = self.caller(token_of(self.project))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.execute, function, other, input={"seconds": 50})
            path = f"/v1/executions?function_id={function['id']}"
            (found,) = until(lambda: self.api.get(path).json()["executions"], "it has a row")
            self.ok(200, self.cancel(found))
            self.assertEqual(("failed", "cancelled"), self.outcome(answer.result(20)))

    def test_what_has_ended_is_409_and_what_is_anothers_404(self) -> None:
        ended = self.execute(self.create())
        self.refused(409, "conflict", self.cancel(ended), "ended")
        _, other = self.member()
        path = f"/v1/executions/{ended['id']}"
        for answer in (other.post(f"{path}/cancel"), other.post(f"{path}/redrive")):
            self.refused(404, "not_found", answer)


class DeadLetterTests(DurableTest):
    def test_what_was_given_up_is_listed_with_its_reason(self) -> None:
        dead = self.dead()
        listed = self.ok(200, self.api.get("/v1/dead_letters"))["dead_letters"]
        self.assertEqual([dead], listed)
        self.assertEqual([], self.letters(function_id=str(uuid.uuid4())))
        self.refused(403, "forbidden", self.api.get("/v1/dead_letters", all_projects="true"))
        everything = self.ok(200, self.admin.get("/v1/dead_letters", all_projects="true"))
        self.assertIn(dead["id"], [each["id"] for each in everything["dead_letters"]])

    def test_one_is_run_again_under_its_id(self) -> None:
        function = self.create(FLAKY)
        dead = self.finished(self.start(function, input={"until": 3}, retry=DEAD))
        self.assertEqual([dead["id"]], self.letters())
        again = self.ok(200, self.api.post(f"/v1/executions/{dead['id']}/redrive"))
        self.assertEqual((dead["id"], "running", None), (again["id"], again["status"], again["result"]))
        ended = self.finished(again)
        self.assertEqual(("success", 3), (ended["status"], ended["attempts"]))
        self.assertEqual([], self.letters())
        self.refused(409, "conflict", self.api.post(f"/v1/executions/{dead['id']}/redrive"))

    def test_many_are_run_again(self) -> None:
        first, second = self.dead(), self.dead()
        redrive = "/v1/dead_letters/redrive"
        self.assertEqual({"redriven": 1}, self.ok(200, self.api.post(redrive, {"ids": [first["id"]]})))
        self.assertEqual({"redriven": 0}, self.ok(200, self.api.post(redrive, {"reason": "expired"})))
        until(lambda: len(self.letters()) == 2, "it has failed again")
        self.assertEqual({"redriven": 2}, self.ok(200, self.api.post(redrive, {})))
        until(lambda: set(self.letters()) == {first["id"], second["id"]}, "both have failed again")
        self.refused(400, "invalid_request", self.api.post(redrive, {"ids": ["x"]}))

    def test_many_are_deleted(self) -> None:
        dead = self.dead()
        purged = self.ok(200, self.api.post("/v1/dead_letters/purge", {"function_id": dead["function_id"]}))
        self.assertEqual({"purged": 1}, purged)
        self.refused(404, "not_found", self.api.get(f"/v1/executions/{dead['id']}"))


class IdempotencyTests(DurableTest):
    def post(self, key: str | bytes, body: dict[str, Any], api: Any = None) -> Any:
        return (api or self.api).post("/v1/executions", body, headers={"Idempotency-Key": key})

    def setUp(self) -> None:
        super().setUp()
        self.trace = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.function = self.create(SLEEP, timeout=60)

    def body(self, **values: Any) -> dict[str, Any]:
        return {"function_id": self.function["id"], "input": values}

    def count(self) -> Any:
        return self.ok(200, self.api.get(f"/v1/functions/{self.function['id']}"))["count"]

    def test_the_same_request_gives_the_same_execution_and_runs_once(self) -> None:
        for sync in (True, False):
            body = {**self.body(value=1), "sync": sync}
            key = f"key {sync}"
            first = self.ok(201, self.post(key, body))
            self.finished(first)
            again = self.ok(201, self.post(key, body))
            self.assertEqual((first["id"], "success"), (again["id"], again["status"]))
        self.assertEqual(2, self.count())

    def test_another_body_is_refused(self) -> None:
        self.ok(201, self.post("k", self.body(value=1)))
        self.refused(422, "idempotency_key_reused", self.post("k", self.body(value=2)))

    def test_a_key_belongs_to_a_project(self) -> None:
        self.ok(201, self.post("k", self.body(value=1)))
        _, other = self.member()
        self.refused(
            404, "not_found", self.post("k", {**self.body(), "function_id": str(uuid.uuid4())}, other)
        )

    def test_requests_at_once_make_one_execution(self) -> None:
        for sync in (True, False):
            body = {**self.body(seconds=0.5, value=1), "sync": sync}
            callers = [self.caller(token_of(self.project)) for _ in range(6)]
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                answers = list(
                    pool.map(lambda api, body=body, s=sync: self.post(f"at once {s}", body, api), callers)
                )
            found = [self.ok(201, answer) for answer in answers]
            self.assertEqual(1, len({each["id"] for each in found}))
            if sync:
                self.assertEqual({"success"}, {each["status"] for each in found})
        self.assertEqual(2, self.count())

    def test_a_key_whose_execution_was_deleted_is_free(self) -> None:
        first = self.ok(201, self.post("k", self.body(value=1)))
        self.api.delete(f"/v1/executions/{first['id']}")
        self.assertNotEqual(first["id"], self.ok(201, self.post("k", self.body(value=2)))["id"])

    def test_a_request_that_was_refused_does_not_use_its_key_up(self) -> None:
        self.refused(404, "not_found", self.post("k", {"function_id": str(uuid.uuid4())}))
        self.ok(201, self.post("k", self.body(value=1)))

    def test_keys_that_cannot_be_used_are_400(self) -> None:
        for key in (b"", b"x" * 256, b"tab\there", b"\xfc"):
            self.refused(400, "invalid_request", self.post(key, self.body()))

    def test_a_slow_path_to_the_same_route_knows_the_key_too(self) -> None:
        answers = [
            self.api.post("/v1//executions", self.body(value=1), headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        self.assertEqual(1, len({self.ok(201, each)["id"] for each in answers}))


class CountTests(DurableTest):
    def test_what_was_accepted_is_somewhere(self) -> None:
        self.refused(403, "forbidden", self.api.get("/v1/stats"))
        before = self.ok(200, self.admin.get("/v1/stats"))["executions"]
        self.finished(self.start(self.create()))
        after = self.ok(200, self.admin.get("/v1/stats"))["executions"]
        self.assertEqual(before["accepted"] + 1, after["accepted"])
        self.assertGreater(after["settled"]["success"], before["settled"]["success"])
        self.assertTrue(after["conserved"])

    def test_it_is_true_at_every_sample(self) -> None:
        function = self.create(SLEEP)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            callers = [self.caller(token_of(self.project)) for _ in range(4)]
            work = [
                pool.submit(lambda api=api: [self.execute(function, api, sync=False) for _ in range(25)])
                for api in callers
            ]
            while not all(each.done() for each in work):
                found = self.ok(200, self.admin.get("/v1/stats"))["executions"]
                self.assertTrue(found["conserved"], found)
            for each in work:
                each.result()

    def test_prometheus_can_read_it_without_a_token(self) -> None:
        answer = self.caller(None).get("/metrics")
        self.assertEqual(200, answer.status_code)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version=0.0.4"))
        lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        self.assertEqual("1", lines["funcplat_executions_conserved"])
        self.assertIn('funcplat_executions_settled_total{outcome="success"}', lines)
        self.assertIn('funcplat_executions{stage="queued"}', lines)

"""Workers, scaling and detaching over HTTP (API.md section 7)."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

from tests.functional.platform import ApiTest, until

ONE = "def main(): return 1"


class WorkerTest(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.function = self.create(ONE)
        self.path = f"/v1/functions/{self.function['id']}"

    def workers(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok(200, self.admin.get(f"{self.path}/workers", **query))["workers"]
        return found

    def ready(self, count: int) -> set[str]:
        """Ids of the workers, once as many as ``count`` are ready and no other is there."""

        def found() -> set[str] | None:
            workers = self.workers()
            if len(workers) != count or {each["state"] for each in workers} - {"ready"}:
                return None
            return {each["id"] for each in workers}

        until(lambda: found() is not None, f"{count} workers are ready")
        return found() or set()

    def scale(self, direction: str, body: Any, **more: Any) -> Any:
        return self.admin.post(f"{self.path}/scale_{direction}", body, **more)


class ScaleTests(WorkerTest):
    def test_a_function_that_was_never_called_has_no_worker(self) -> None:
        self.assertEqual([], self.workers())
        self.assertEqual(1, self.output(self.execute(self.function)))
        (worker,) = self.workers()
        self.assertEqual((self.function["id"], 0), (worker["function_id"], worker["function_version"]))
        self.assertTrue(worker["worker_name"])

    def test_workers_of_another_version_are_others(self) -> None:
        self.execute(self.function)
        self.assertEqual(1, len(self.workers(function_version="0")))
        self.assertEqual([], self.workers(function_version="1"))
        path = f"{self.path}/workers"
        for query in ({"function_version": "x"}, {"function_version": ""}, {"colour": "red"}, {"limit": "1"}):
            self.refused(400, "invalid_request", self.admin.get(path, **query))

    def test_scaling_up_starts_workers_that_are_called(self) -> None:
        answer = self.scale("up", {"count": 2})
        self.assertEqual((202, b""), (answer.status_code, answer.content))
        ids = self.ready(2)
        self.assertEqual(1, self.output(self.execute(self.function)))
        self.assertEqual(ids, self.ready(2))

    def test_counts(self) -> None:
        for body in ({"count": "1"}, {}, {"count": None}):
            self.ok(202, self.scale("up", body))
        self.ready(3)
        for direction in ("up", "down"):
            for body in (
                {"count": 0},
                {"count": -1},
                {"count": "x"},
                {"count": 1.5},
                {"count": 10**30},
                [],
                {"n": 1},
            ):
                self.refused(400, "invalid_request", self.scale(direction, body))
            self.refused(400, "invalid_request", self.scale(direction, None), "Missing argument")
            self.refused(400, "invalid_request", self.scale(direction, None, content=b"{"))

    def test_scaling_down_keeps_one(self) -> None:
        self.ok(202, self.scale("down", {"count": 1}))
        self.assertEqual([], self.workers())
        self.ok(202, self.scale("up", {"count": 3}))
        before = self.ready(3)
        self.ok(202, self.scale("down", {"count": 1}))
        self.assertEqual(set(), self.ready(2) - before)
        self.ok(202, self.scale("down", {"count": 9}))
        last = self.ready(1)
        self.ok(202, self.scale("down", {"count": 1}))
        self.assertEqual(last, self.ready(1))
        self.assertEqual(1, self.output(self.execute(self.function)))

    def test_workers_that_are_listed_but_still_start_are_scaled_down_too(self) -> None:
        self.execute(self.function)
        self.ok(202, self.scale("up", {"count": 3}))
        until(lambda: len(self.workers()) == 4, "four workers are listed")
        self.ok(202, self.scale("down", {"count": 9}))
        self.assertEqual(1, len(self.ready(1)))
        self.assertEqual(1, self.output(self.execute(self.function)))

    def test_detaching_stops_all_workers_and_the_next_call_gets_a_new_one(self) -> None:
        self.ok(202, self.scale("up", {"count": 2}))
        before = self.ready(2)
        for _ in range(2):
            answer = self.admin.post(f"{self.path}/detach")
            self.assertEqual((202, b""), (answer.status_code, answer.content))
        self.ready(0)
        self.assertEqual(1, self.output(self.execute(self.function)))
        self.assertEqual(set(), before & self.ready(1))

    def test_a_detached_worker_lives_until_every_router_has_forgotten_it(self) -> None:
        # Else a call that is on its way to it would be lost rather than refused and sent elsewhere.
        self.execute(self.function)
        (worker,) = self.ready(1)
        self.platform.services.workers.detach(self.function["id"], 0)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            self.assertEqual("success", self.execute(self.function)["status"])
            states = {each["id"]: each["state"] for each in self.workers()}
            self.assertEqual("draining", states.get(worker))
        until(lambda: worker not in [each["id"] for each in self.workers()], "it is gone")

    def test_what_does_not_exist_is_404(self) -> None:
        unknown = f"/v1/functions/{uuid.uuid4()}"
        for method, path in (
            ("GET", "workers"),
            ("POST", "scale_up"),
            ("POST", "scale_down"),
            ("POST", "detach"),
        ):
            answer = self.admin(method, f"{unknown}/{path}", json={} if "scale" in path else None)
            self.refused(404, "not_found", answer, "Function not found")
            self.refused(
                400, "invalid_request", self.admin(method, f"/v1/functions/abc/{path}", json={"count": 1})
            )

    def test_an_id_may_be_written_in_capitals(self) -> None:
        path = f"/v1/functions/{self.function['id'].upper()}"
        self.ok(202, self.admin.post(f"{path}/scale_up", {"count": 2}))
        self.ready(2)
        self.ok(202, self.admin.post(f"{path}/scale_down", {"count": 1}))
        self.ready(1)
        self.ok(202, self.admin.post(f"{path}/detach"))
        self.ready(0)


class CapTests(WorkerTest):
    options: ClassVar = {"scaling": {"max_workers_per_function": 2}}

    def test_more_workers_than_the_cap_are_refused_as_a_whole(self) -> None:
        self.refused(409, "conflict", self.scale("up", {"count": 3}), "2")
        self.assertEqual([], self.workers())
        self.ok(202, self.scale("up", {"count": 2}))
        self.ready(2)
        self.refused(409, "conflict", self.scale("up", {"count": 1}), "2 of 2 workers of this function")


class _StartsWhileListing:
    """A driver of whose workers one starts just after it made its first list."""

    def __init__(self, driver: Any, start: Any) -> None:
        self._driver = driver
        # Once: the platform's own reaper may make a list at the same moment.
        self._starts = iter([start])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def list_workers(self, deadline: float) -> Any:
        found = list(self._driver.list_workers(deadline))
        next(self._starts, lambda: None)()
        return found


class ReaperTests(WorkerTest):
    @contextlib.contextmanager
    def driver(self, make: Any) -> Iterator[None]:
        drivers = self.platform.services.orchestrators
        real = drivers["process"]
        drivers["process"] = make(real)
        try:
            yield
        finally:
            drivers["process"] = real

    def test_a_worker_that_starts_while_the_driver_lists_is_left_alone(self) -> None:
        services = self.platform.services
        revision = services.routes.read(self.function["id"], 0).revision_id
        with self.driver(lambda real: _StartsWhileListing(real, lambda: services.starts.start(revision))):
            services.workers.reap()
        self.ready(1)
        self.assertEqual(1, self.output(self.execute(self.function)))

    def test_a_worker_that_no_row_knows_is_stopped(self) -> None:
        self.execute(self.function)
        (worker,) = self.ready(1)
        services = self.platform.services
        with services.db.write() as connection:
            connection.exec_driver_sql("DELETE FROM workers WHERE id = ?", (worker,))
        services.workers.reap()
        driver = services.orchestrators["process"]
        self.assertNotIn(worker, [state.worker_id for state in driver.list_workers(5.0)])
        self.assertEqual(1, self.output(self.execute(self.function)))

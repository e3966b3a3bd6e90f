"""Versions over HTTP (API.md section 5), their workers and their executions (sections 7 and 8)."""

from __future__ import annotations

import concurrent.futures
import uuid
from typing import Any

import httpx
import sqlalchemy as sa

from funcplat.db import models
from tests.functional.platform import ApiTest, package, token_of, until

FIELDS = {
    "id",
    "description",
    "function_id",
    "version_number",
    "count",
    "project_id",
    "created_at",
    "updated_at",
}


def source(number: int) -> str:
    return f"def main(**kwargs):\n    return {number}\n\ndef other(**kwargs):\n    return 'other {number}'\n"


class VersionTest(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.function = self.create(source(0))
        self.path = f"/v1/functions/{self.function['id']}"
        self.versions = f"{self.path}/versions"

    def upload(self, number: int) -> None:
        files = {"package": ("f.zip", package(source(number)))}
        self.ok(200, self.api("PUT", self.path, files=files))

    def publish(self, **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.ok(201, self.api.post(self.versions, fields))
        return made

    def publish_many(self, *numbers: int) -> None:
        """A version of each of these sources."""
        for number in numbers:
            self.upload(number)
            self.publish()

    def numbers(self) -> list[int]:
        listed = self.ok(200, self.api.get(self.versions))["function_versions"]
        return [each["version_number"] for each in listed]

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ok(200, self.api.get(self.path))
        return found

    def call(self, version: Any, **fields: Any) -> Any:
        return self.output(self.execute(self.function, function_version=version, **fields))

    def workers(self, version: int) -> list[dict[str, Any]]:
        answer = self.admin.get(f"{self.path}/workers", function_version=version)
        found: list[dict[str, Any]] = self.ok(200, answer)["workers"]
        return found

    def live(self, version: int) -> list[str]:
        return [each["id"] for each in self.workers(version) if each["state"] == "ready"]


class ResourceTests(VersionTest):
    def test_a_version_has_all_fields_and_number_1(self) -> None:
        made = self.publish(description="first")
        self.assertEqual(FIELDS, set(made))
        self.assertEqual(
            (1, "first", self.function["id"], 0, self.project, None),
            tuple(
                made[name]
                for name in (
                    "version_number",
                    "description",
                    "function_id",
                    "count",
                    "project_id",
                    "updated_at",
                )
            ),
        )
        self.assertRegex(made["created_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(made, self.ok(200, self.api.get(f"{self.versions}/1")))
        self.assertEqual({"function_versions": [made]}, self.ok(200, self.api.get(self.versions)))
        self.assertEqual(1, self.shown()["latest_version"])

    def test_a_description_is_optional_and_null_is_none(self) -> None:
        self.assertIsNone(self.publish()["description"])
        self.upload(1)
        self.assertIsNone(self.publish(description=None)["description"])

    def test_bodies_that_cannot_be_used(self) -> None:
        def refused(body: Any, *words: str, **more: Any) -> None:
            answer = self.api.post(self.versions, body, **more)
            self.refused(400, "invalid_request", answer, *words)

        refused(None, "Missing argument")
        refused([])
        refused("text")
        refused({"colour": "red"}, "Unknown attribute")
        refused({"description": 7})
        refused({"description": "x" * 256})
        refused({"description": "\0"})
        refused({"version_number": 7}, "read only")
        refused({"count": 7}, "read only")
        refused(None, content=b"{")
        self.assertEqual([], self.numbers())

    def test_versions_are_listed_by_number_in_pages(self) -> None:
        self.publish_many(1, 2, 3)
        self.assertEqual([1, 2, 3], self.numbers())
        page = self.ok(200, self.api.get(self.versions, limit=2))
        self.assertEqual([1, 2], [each["version_number"] for each in page["function_versions"]])
        rest = self.ok(200, self.api("GET", page["next"]))
        self.assertEqual([3], [each["version_number"] for each in rest["function_versions"]])
        newest = self.ok(200, self.api.get(self.versions, sort_dir="desc", limit=1))
        self.assertEqual(3, newest["function_versions"][0]["version_number"])
        for query in ({"all_projects": "true"}, {"project_id": "x"}, {"colour": "red"}, {"marker": "x"}):
            self.refused(400, "invalid_request", self.api.get(self.versions, **query))

    def test_what_is_no_version(self) -> None:
        self.publish()
        for number in ("0", "2", "2147483647"):
            self.refused(404, "not_found", self.api.get(f"{self.versions}/{number}"))
            self.refused(404, "not_found", self.api.get(f"{self.versions}/{number}?download=true"))
            self.refused(404, "not_found", self.api.delete(f"{self.versions}/{number}"))
        for number in ("abc", "-1", "1.5", "9" * 30, "%00"):
            for method in ("GET", "DELETE"):
                self.refused(400, "invalid_request", self.api(method, f"{self.versions}/{number}"))
            for verb in ("scale_up", "scale_down", "detach"):
                path = f"{self.versions}/{number}/{verb}"
                self.refused(400, "invalid_request", self.admin.post(path, {}))

    def test_functions_that_do_not_exist(self) -> None:
        for function, status, code in ((uuid.uuid4(), 404, "not_found"), ("abc", 400, "invalid_request")):
            path = f"/v1/functions/{function}/versions"
            for answer in (
                self.api.get(path),
                self.api.post(path, {}),
                self.api.get(f"{path}/1"),
                self.api.delete(f"{path}/1"),
                self.admin.post(f"{path}/1/scale_up", {}),
                self.admin.post(f"{path}/1/scale_down", {}),
                self.admin.post(f"{path}/1/detach"),
            ):
                self.refused(status, code, answer)

    def test_a_version_cannot_be_changed(self) -> None:
        self.publish()
        for method in ("PUT", "POST"):
            answer = self.api(method, f"{self.versions}/1", json={"description": "x"})
            self.refused(405, "method_not_allowed", answer)
            self.assertEqual({"GET", "DELETE", "OPTIONS"}, set(answer.headers["allow"].split(", ")))

    def test_slashes_make_no_difference(self) -> None:
        self.ok(201, self.api.post(f"{self.versions}/", {}))
        listed = self.ok(200, self.api.get(f"/v1/{self.versions.removeprefix('/v1')}/"))
        self.assertEqual([1], [each["version_number"] for each in listed["function_versions"]])
        self.ok(200, self.admin.get(f"{self.path}/workers/?function_version=1"))


class NumberTests(VersionTest):
    def test_a_package_that_did_not_change(self) -> None:
        self.publish()
        self.refused(
            403,
            "version_unchanged",
            self.api.post(self.versions, {}),
            "Function package not changed since the latest version 1.",
        )
        self.upload(1)
        self.assertEqual(2, self.publish()["version_number"])
        self.upload(0)
        self.assertEqual(3, self.publish()["version_number"])

    def test_at_most_ten_and_numbers_that_grow_on(self) -> None:
        self.publish_many(*range(1, 11))
        self.upload(11)
        self.refused(
            403,
            "too_many_versions",
            self.api.post(self.versions, {}),
            "Can not exceed maximum number(10) of versions",
        )
        for number in range(1, 6):
            self.ok(204, self.api.delete(f"{self.versions}/{number}"))
        self.assertEqual(11, self.publish()["version_number"])
        self.assertEqual([6, 7, 8, 9, 10, 11], self.numbers())

    def test_a_number_is_never_given_again(self) -> None:
        self.publish_many(1, 2)
        self.ok(204, self.api.delete(f"{self.versions}/2"))
        self.assertEqual(1, self.shown()["latest_version"])
        self.assertEqual(3, self.publish()["version_number"])
        self.assertEqual(3, self.shown()["latest_version"])
        self.ok(204, self.api.delete(f"{self.versions}/1"))
        self.assertEqual(3, self.shown()["latest_version"])
        self.ok(204, self.api.delete(f"{self.versions}/3"))
        self.assertEqual(0, self.shown()["latest_version"])
        self.assertEqual(4, self.publish()["version_number"])

    def test_of_five_posts_at_once_one_makes_a_version(self) -> None:
        apis = [self.caller(token_of(self.project)) for _ in range(5)]
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda api: api.post(self.versions, {}), apis))
        self.assertEqual([201, 403, 403, 403, 403], sorted(each.status_code for each in answers))
        self.assertEqual([1], self.numbers())


class ProjectTests(VersionTest):
    def test_other_projects_see_nothing(self) -> None:
        self.publish()
        _, other = self.member()
        for answer in (
            other.get(self.versions),
            other.post(self.versions, {}),
            other.get(f"{self.versions}/1"),
            other.get(f"{self.versions}/1?download=true"),
            other.delete(f"{self.versions}/1"),
        ):
            self.refused(404, "not_found", answer, "Function not found")
        self.assertEqual([1], self.numbers())

    def test_admins_see_versions_and_neither_make_nor_delete_them(self) -> None:
        made = self.publish()
        self.upload(1)
        self.assertEqual([made], self.ok(200, self.admin.get(self.versions))["function_versions"])
        self.assertEqual(made, self.ok(200, self.admin.get(f"{self.versions}/1")))
        self.refused(404, "not_found", self.admin.post(self.versions, {}))
        self.refused(404, "not_found", self.admin.delete(f"{self.versions}/1"))

    def test_workers_are_for_admins(self) -> None:
        self.publish()
        for verb in ("scale_up", "scale_down", "detach"):
            self.refused(403, "forbidden", self.api.post(f"{self.versions}/1/{verb}", {}))


class DownloadTests(VersionTest):
    def download(self, version: int, **headers: str) -> httpx.Response:
        return self.api("GET", f"{self.versions}/{version}", params={"download": "true"}, headers=headers)

    def test_a_package_comes_as_a_zip_with_its_name(self) -> None:
        self.publish()
        for accept in ("*/*", "application/zip", "application/json"):
            answer = self.download(1, Accept=accept)
            self.assertEqual((200, package(source(0))), (answer.status_code, answer.content))
            self.assertEqual("application/zip", answer.headers["content-type"])
            name = f'attachment; filename="{self.function["id"]}_1"'
            self.assertEqual(name, answer.headers["content-disposition"])
            self.assertEqual(str(len(answer.content)), answer.headers["content-length"])

    def test_every_version_keeps_its_own(self) -> None:
        self.publish_many(*range(1, 11))
        self.upload(99)
        for number in range(1, 11):
            self.assertEqual(package(source(number)), self.download(number).content)
        self.ok(204, self.api.delete(f"{self.versions}/1"))
        self.assertEqual(package(source(10)), self.download(10).content)
        self.assertEqual(package(source(99)), self.api.get(self.path, download="true").content)

    def test_admins_may_download(self) -> None:
        self.publish()
        answer = self.admin.get(f"{self.versions}/1", download="1")
        self.assertEqual(package(source(0)), answer.content)
        self.refused(400, "invalid_request", self.api.get(f"{self.versions}/1", download="maybe"))


class ExecutionTests(VersionTest):
    def test_a_version_runs_its_own_code(self) -> None:
        self.publish()
        self.upload(1)
        self.publish()
        self.upload(2)
        self.assertEqual([0, 1, 2], [self.call(version) for version in (1, 2, 0)])
        self.assertEqual(0, self.call("1"))
        self.assertEqual(2, self.call(None))

    def test_the_record_says_which_version_ran_and_the_version_counts(self) -> None:
        self.publish()
        done = self.execute(self.function, function_version=1)
        later = self.execute(self.function, function_version=1, sync=False)
        self.assertEqual("success", self.finished(later)["status"])
        for execution in (done, later):
            shown = self.ok(200, self.api.get(f"/v1/executions/{execution['id']}"))
            self.assertEqual((self.function["id"], 1), (shown["function_id"], shown["function_version"]))
        self.assertEqual(0, self.output(self.finished(later)))
        until(lambda: self.ok(200, self.api.get(f"{self.versions}/1"))["count"] == 2, "it has counted")
        self.assertEqual(0, self.shown()["count"])
        self.call(0)
        self.assertEqual(1, self.shown()["count"])

    def test_the_function_is_told_which_version_it_is(self) -> None:
        told = "def main(context, **kwargs): return context['function_version']"
        self.ok(200, self.api("PUT", self.path, files={"package": ("f.zip", package(told))}))
        self.publish()
        self.assertEqual([1, 0], [self.call(version) for version in (1, 0)])

    def test_versions_that_do_not_exist(self) -> None:
        self.publish()
        for sync in (True, False):
            for version, status in ((2, 404), (-1, 400), ("abc", 400), (2**31, 400), (1.5, 400)):
                body = {"function_id": self.function["id"], "function_version": version, "sync": sync}
                answer = self.api.post("/v1/executions", body)
                self.refused(status, "not_found" if status == 404 else "invalid_request", answer)

    def test_other_projects_do_not_learn_which_functions_and_versions_exist(self) -> None:
        self.publish()
        _, other = self.member()
        unknown = str(uuid.uuid4())
        for function, version in ((self.function["id"], 1), (self.function["id"], 2), (unknown, 1)):
            body = {"function_id": function, "function_version": version}
            message = f"Function not found [id={function}]"
            answer = other.post("/v1/executions", body)
            self.assertEqual(message, self.refused(404, "not_found", answer)["faultstring"])

    def test_admins_call_versions_of_others_in_their_own_project(self) -> None:
        self.publish()
        done = self.execute(self.function, self.admin, function_version=1)
        self.assertEqual(("admins", 0), (done["project_id"], self.output(done)))

    def test_entry_and_limits_are_those_of_the_function(self) -> None:
        self.publish()
        self.upload(1)
        self.assertEqual(0, self.call(1))
        self.ok(200, self.api.put(self.path, {"entry": "main.other"}))
        self.assertEqual(["other 0", "other 1"], [self.call(version) for version in (1, 0)])

    def test_a_version_is_called_on_while_the_functions_code_changes(self) -> None:
        self.publish()
        self.call(1)
        (worker,) = self.live(1)
        for number in (1, 2, 3):
            self.upload(number)
            self.assertEqual([0, number], [self.call(version) for version in (1, 0)])
        self.assertEqual([worker], self.live(1))

    def test_an_execution_of_a_deleted_version_keeps_its_record(self) -> None:
        self.publish()
        done = self.execute(self.function, function_version=1)
        self.ok(204, self.api.delete(f"{self.versions}/1"))
        self.assertEqual(1, self.ok(200, self.api.get(f"/v1/executions/{done['id']}"))["function_version"])
        body = {"function_id": self.function["id"], "function_version": 1}
        self.refused(404, "not_found", self.api.post("/v1/executions", body))

    def test_what_runs_when_its_version_is_deleted_ends_in_peace(self) -> None:
        slow = "import time\n\ndef main(**kwargs):\n    time.sleep(0.5)\n    return 'done'\n"
        self.ok(200, self.api("PUT", self.path, files={"package": ("f.zip", package(slow))}))
        self.publish()
        running = self.execute(self.function, function_version=1, sync=False)
        until(lambda: self.live(1), "its worker is there")
        path = f"/v1/executions/{running['id']}"
        until(lambda: self.ok(200, self.api.get(path))["phase"] == "running", "it runs")
        self.ok(204, self.api.delete(f"{self.versions}/1"))
        ended = self.finished(running)
        self.assertEqual("done", self.output(ended))
        until(lambda: not self.workers(1), "its worker is gone")


class WorkerTests(VersionTest):
    def scale(self, version: int, direction: str, body: Any) -> httpx.Response:
        return self.admin.post(f"{self.versions}/{version}/scale_{direction}", body)

    def test_workers_of_a_version_are_scaled_apart_from_those_of_the_function(self) -> None:
        self.publish()
        self.call(0)
        answer = self.scale(1, "up", {"count": 2})
        self.assertEqual((202, b""), (answer.status_code, answer.content))
        until(lambda: len(self.live(1)) == 2, "two workers of version 1")
        self.assertEqual(1, len(self.live(0)))
        for worker in self.workers(1):
            self.assertEqual((self.function["id"], 1), (worker["function_id"], worker["function_version"]))
        self.assertEqual(0, self.call(1))
        self.ok(202, self.scale(1, "down", {"count": 5}))
        until(lambda: len(self.workers(1)) == 1, "one stays")
        self.ok(202, self.scale(1, "down", {}))
        self.assertEqual((1, 1), (len(self.live(0)), len(self.live(1))))

    def test_counts_that_cannot_be_used(self) -> None:
        self.publish()
        for direction in ("up", "down"):
            for body in ({"count": 0}, {"count": -1}, {"count": "x"}, [], {"n": 1}, None):
                self.refused(400, "invalid_request", self.scale(1, direction, body))
        self.refused(409, "conflict", self.scale(1, "up", {"count": 10_000}))

    def test_detaching_a_version_leaves_the_function_alone(self) -> None:
        self.publish()
        self.call(0)
        self.call(1)
        (zero,), (one,) = self.live(0), self.live(1)
        for _ in range(2):
            answer = self.admin.post(f"{self.versions}/1/detach")
            self.assertEqual((202, b""), (answer.status_code, answer.content))
        until(lambda: not self.workers(1), "version 1 has no workers")
        self.assertEqual([zero], self.live(0))
        self.assertEqual(0, self.call(1))
        self.assertNotEqual([one], self.live(1))

    def test_version_0_is_the_function_itself(self) -> None:
        self.ok(202, self.scale(0, "up", {"count": 2}))
        until(lambda: len(self.live(0)) == 2, "two workers")
        self.ok(202, self.scale(0, "down", {"count": 1}))
        until(lambda: len(self.workers(0)) == 1, "one worker")
        self.ok(202, self.admin.post(f"{self.versions}/0/detach"))
        until(lambda: not self.workers(0), "no worker")

    def test_unknown_versions(self) -> None:
        for verb in ("scale_up", "scale_down", "detach"):
            self.refused(404, "not_found", self.admin.post(f"{self.versions}/7/{verb}", {}))
        self.assertEqual([], self.workers(7))
        answer = self.admin.get(f"{self.path}/workers", function_version=-1)
        self.refused(400, "invalid_request", answer)

    def test_workers_of_a_deleted_version_go(self) -> None:
        self.publish()
        self.call(1)
        self.ok(204, self.api.delete(f"{self.versions}/1"))
        until(lambda: not self.workers(1), "version 1 has no workers")

    def test_deleting_the_function_ends_the_workers_of_all_versions(self) -> None:
        self.publish()
        self.call(1)
        self.call(0)
        self.ok(204, self.api.delete(self.path))
        self.refused(404, "not_found", self.api.get(self.versions))
        body = {"function_id": self.function["id"], "function_version": 1}
        self.refused(404, "not_found", self.api.post("/v1/executions", body))
        services = self.platform.services
        until(lambda: not _workers_of(services, self.function["id"]), "no worker is left")


def _workers_of(services: Any, function_id: str) -> list[Any]:
    table = models.workers
    query = sa.select(table.c.id).where(table.c.function_id == function_id, table.c.state != "deleted")
    with services.db.read() as connection:
        return list(connection.execute(query))

"""Paging, sorting and filters of lists (API.md section 1.4, and what this server adds)."""

from __future__ import annotations

import uuid
from typing import Any

from tests.functional.platform import Api, ApiTest


class PagingTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.ids = [self.create(name=f"n{n % 3}", timeout=str(n + 1))["id"] for n in range(7)]

    def walk(self, **query: Any) -> list[str]:
        """Ids of all pages, by following ``next``."""
        found: list[str] = []
        page = self.ok(200, self.api.get("/v1/functions", **query))
        while True:
            found += [each["id"] for each in page["functions"]]
            if "next" not in page:
                return found
            self.assertEqual(query["limit"], len(page["functions"]))
            page = self.ok(200, self.api.get(page["next"]))

    def test_without_a_limit_all_are_listed_in_the_order_of_their_creation(self) -> None:
        listed = self.ok(200, self.api.get("/v1/functions"))
        self.assertEqual(self.ids, [each["id"] for each in listed["functions"]])
        self.assertNotIn("next", listed)

    def test_following_next_walks_everything_exactly_once(self) -> None:
        for limit in (1, 2, 3, 7, 8):
            self.assertEqual(self.ids, self.walk(limit=limit))
            self.assertEqual(self.ids[::-1], self.walk(limit=limit, sort_dir="desc"))

    def test_rows_that_sort_alike_are_walked_exactly_once_too(self) -> None:
        for key in ("name", "description", "updated_at", "entry", "count", "project_id", "runtime_id"):
            for direction in ("asc", "desc"):
                walked = self.walk(limit=2, sort_key=key, sort_dir=direction)
                self.assertEqual(sorted(self.ids), sorted(walked), key)

    def test_lists_are_sorted_by_a_field(self) -> None:
        descending = self.ok(200, self.api.get("/v1/functions", sort_key="timeout", sort_dir="desc"))
        self.assertEqual([7, 6, 5, 4, 3, 2, 1], [each["timeout"] for each in descending["functions"]])
        names = [
            each["name"] for each in self.ok(200, self.api.get("/v1/functions", sort_key="name"))["functions"]
        ]
        self.assertEqual(sorted(names), names)

    def test_a_marker_is_the_last_id_of_the_page_before(self) -> None:
        page = self.ok(200, self.api.get("/v1/functions", marker=self.ids[2], limit=2))
        self.assertEqual(self.ids[3:5], [each["id"] for each in page["functions"]])
        rest = self.ok(200, self.api.get("/v1/functions", marker=self.ids[5]))
        self.assertEqual(self.ids[6:], [each["id"] for each in rest["functions"]])

    def test_paging_that_cannot_be_is_400(self) -> None:
        for query in (
            {"limit": "0"},
            {"limit": "-1"},
            {"limit": "many"},
            {"limit": ""},
            {"limit": "10001"},
            {"limit": "9" * 5000},
            {"marker": str(uuid.uuid4())},
            {"marker": "abc"},
            {"marker": ""},
            {"marker": "\0"},
            {"sort_dir": "up"},
            {"sort_key": "colour"},
            {"sort_key": "code"},
            {"sort_key": "environment"},
            {"sort_key": "id; DROP TABLE functions"},
            {"colour": "red"},
            {"fields": "id"},
        ):
            self.refused(400, "invalid_request", self.api.get("/v1/functions", **query))
        for column in ("server_id", "worker_id", "due_at", "next_image", "secret"):
            for kind in ("executions", "runtimes"):
                self.refused(400, "invalid_request", self.api.get(f"/v1/{kind}", sort_key=column), "sort_key")

    def test_next_keeps_the_query_and_the_path(self) -> None:
        page = self.ok(200, self.admin.get("/v1//functions/", limit=1, all_projects="true", sort_dir="desc"))
        self.assertTrue(page["next"].startswith("/v1/functions?"), page["next"])
        for part in ("limit=1", "all_projects=true", "sort_dir=desc", f"marker={page['functions'][0]['id']}"):
            self.assertIn(part, page["next"])


class FilterTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        good, bad = self.create(), self.create("def main(): raise ValueError('too bad')")
        self.good, self.bad = good["id"], bad["id"]
        for description in ("first", "second", "50%_off", None):
            self.execute(good, description=description)
        self.execute(bad, description="third")

    def descriptions(self, api: Api | None = None, **query: str) -> list[Any]:
        listed = self.ok(200, (api or self.api).get("/v1/executions", **query))["executions"]
        return [each["description"] for each in listed]

    def test_filters_without_an_operator_are_equality(self) -> None:
        self.assertEqual(["first", "second", "50%_off", None], self.descriptions(function_id=self.good))
        self.assertEqual(["third"], self.descriptions(status="failed"))
        self.assertEqual(["second"], self.descriptions(description="second", status="success"))
        self.assertEqual([], self.descriptions(description="sec"))

    def test_operators(self) -> None:
        for query, expected in (
            ({"description": "eq:first"}, ["first"]),
            ({"description": "neq:first"}, ["second", "50%_off", "third"]),
            ({"description": "in:first,third"}, ["first", "third"]),
            ({"description": "nin:first,second"}, ["50%_off", "third"]),
            ({"description": "gt:second"}, ["third"]),
            ({"description": "gte:second"}, ["second", "third"]),
            ({"description": "lt:first"}, ["50%_off"]),
            ({"description": "lte:first"}, ["first", "50%_off"]),
            ({"description": "has:ir"}, ["first", "third"]),
            ({"description": "has:%_"}, ["50%_off"]),
            ({"description": "has:'"}, []),
            ({"status": "in:failed,error"}, ["third"]),
            ({"status": "neq:success"}, ["third"]),
            ({"function_id": f"neq:{self.good}"}, ["third"]),
            ({"description": "unknown:first"}, []),
        ):
            self.assertEqual(expected, self.descriptions(**query), query)

    def test_running_covers_what_waits_in_the_queue(self) -> None:
        function = self.create("import time\ndef main(): time.sleep(3)")
        execution = self.execute(function, sync=False)
        for query in ("running", "eq:running", "in:running,failed", "neq:success"):
            listed = self.ok(200, self.api.get("/v1/executions", status=query))["executions"]
            self.assertIn(execution["id"], [each["id"] for each in listed], query)
        for query in ("queued", "neq:running", "nin:running"):
            listed = self.ok(200, self.api.get("/v1/executions", status=query))["executions"]
            self.assertNotIn(execution["id"], [each["id"] for each in listed], query)

    def test_filters_and_pages_go_together(self) -> None:
        found, query = [], {"function_id": self.good, "limit": "1"}
        page = self.ok(200, self.api.get("/v1/executions", **query))
        while page["executions"]:
            found += [each["description"] for each in page["executions"]]
            page = self.ok(200, self.api.get(page["next"]))
        self.assertEqual(["first", "second", "50%_off", None], found)

    def test_unknown_filters_are_400(self) -> None:
        for name in ("id", "input", "result", "sync", "server_id"):
            self.refused(
                400, "invalid_request", self.api.get("/v1/executions", **{name: "x"}), "Unknown argument"
            )
        self.refused(400, "invalid_request", self.api.get("/v1/functions", entry="x"), "Unknown argument")
        self.refused(400, "invalid_request", self.api.get("/v1/executions", status="a\0"))

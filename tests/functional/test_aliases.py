"""Aliases over HTTP (API.md section 6), calls of them, and the weights that are an addition."""

from __future__ import annotations

import collections
import concurrent.futures
import uuid
from typing import Any

import httpx

from funcplat.auth.base import Identity
from funcplat.core.aliases import Changes
from tests.functional.platform import ApiTest, package, token_of, until

FIELDS = {
    "id",
    "name",
    "description",
    "function_id",
    "function_version",
    "project_id",
    "created_at",
    "updated_at",
    "routes",
}


class AliasTest(ApiTest):
    """A function with the versions 1 and 2, which return their numbers, as its own code returns 0."""

    def setUp(self) -> None:
        super().setUp()
        self.function = self.versioned()

    def versioned(self, api: Any = None) -> dict[str, Any]:
        function = self.create("def main(**kwargs): return 1", api)
        path = f"/v1/functions/{function['id']}"
        for number in (2, 0):
            self.ok(201, (api or self.api).post(f"{path}/versions", {}))
            files = {"package": ("f.zip", package(f"def main(**kwargs): return {number}"))}
            self.ok(200, (api or self.api)("PUT", path, files=files))
        return function

    def post(self, name: str = "prod", version: Any = 1, **fields: Any) -> httpx.Response:
        body = {"name": name, "function_id": self.function["id"], "function_version": version}
        return self.api.post("/v1/aliases", {**body, **fields})

    def make(self, name: str = "prod", version: Any = 1, **fields: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.ok(201, self.post(name, version, **fields))
        return made

    def change(self, name: str = "prod", **fields: Any) -> dict[str, Any]:
        changed: dict[str, Any] = self.ok(200, self.api.put(f"/v1/aliases/{name}", fields))
        return changed

    def call(self, name: str = "prod", api: Any = None, **fields: Any) -> dict[str, Any]:
        body = {"function_alias": name, **fields}
        called: dict[str, Any] = self.ok(201, (api or self.api).post("/v1/executions", body))
        return called

    def names(self, api: Any = None, **query: Any) -> list[str]:
        listed = self.ok(200, (api or self.api).get("/v1/aliases", **query))
        return [each["name"] for each in listed["function_aliases"]]


def route(version: Any, weight: Any) -> dict[str, Any]:
    return {"function_version": version, "weight": weight}


class ResourceTests(AliasTest):
    def test_an_alias_has_all_fields(self) -> None:
        made = self.make(description="d")
        self.assertEqual(FIELDS, set(made))
        self.assertEqual(
            ("prod", "d", self.function["id"], 1, self.project, None, None),
            tuple(
                made[name]
                for name in (
                    "name",
                    "description",
                    "function_id",
                    "function_version",
                    "project_id",
                    "updated_at",
                    "routes",
                )
            ),
        )
        self.assertEqual(made, self.ok(200, self.api.get("/v1/aliases/prod")))
        self.assertEqual({"function_aliases": [made]}, self.ok(200, self.api.get("/v1/aliases")))

    def test_what_clients_send(self) -> None:
        # The old client sends all keys, null for what is not set, and posts to a doubled slash.
        body = {
            "name": "prod",
            "function_id": self.function["id"],
            "function_version": "2",
            "description": None,
        }
        self.assertEqual(2, self.ok(201, self.api.post("/v1//aliases", body))["function_version"])
        nothing = {"function_id": None, "function_version": None, "description": None}
        self.assertEqual(2, self.change(**nothing)["function_version"])
        self.assertEqual(1, self.change(**{**nothing, "function_version": "1"})["function_version"])
        self.assertEqual(0, self.make("other", None)["function_version"])

    def test_bodies_that_cannot_be_used(self) -> None:
        target = {"function_id": self.function["id"]}
        for body in (
            None,
            [],
            {},
            {"name": "a"},
            target,
            {"name": "", **target},
            {"name": "a", "function_id": "abc"},
            {"name": "a", "function_id": 7},
            {"name": "a/b", **target},
            {"name": "..", **target},
            {"name": "x" * 256, **target},
            {"name": "a\0", **target},
            {"name": "a", **target, "function_version": -1},
            {"name": "a", **target, "function_version": "x"},
            {"name": "a", **target, "function_version": 2**31},
            {"name": "a", **target, "description": "x" * 256},
            {"name": "a", **target, "project_id": "x"},
            {"name": "a", **target, "colour": "red"},
        ):
            self.refused(400, "invalid_request", self.api.post("/v1/aliases", body))
        self.assertEqual([], self.names())
        self.make()
        for body in (
            None,
            [],
            {"function_id": "abc"},
            {"function_version": -1},
            {"id": "x"},
            {"colour": "red"},
        ):
            self.refused(400, "invalid_request", self.api.put("/v1/aliases/prod", body))

    def test_targets_that_are_not_there(self) -> None:
        _, other = self.member()
        foreign = self.versioned(other)["id"]
        for function, version in ((self.function["id"], 3), (str(uuid.uuid4()), 0), (foreign, 1)):
            fields = {"function_id": function, "function_version": version}
            self.refused(404, "not_found", self.post(**fields))
            body = {"name": "a", **fields}
            self.refused(404, "not_found", self.admin.post("/v1/aliases", body))
        self.make()
        self.refused(404, "not_found", self.api.put("/v1/aliases/prod", {"function_id": foreign}))
        self.refused(404, "not_found", self.api.put("/v1/aliases/prod", {"function_version": 3}))

    def test_duplicates(self) -> None:
        self.make()
        self.make("other", 2)
        for answer in (
            self.post("prod", 0),
            self.post("third", 1),
            self.api.put("/v1/aliases/other", {"function_version": 1}),
        ):
            self.refused(400, "duplicate", answer, "Duplicate entry for function_aliases")
        self.assertEqual(["prod", "other"], self.names())

    def test_a_change_of_one_thing_leaves_the_others(self) -> None:
        made = self.make(description="d")
        changed = self.change(function_version=2)
        self.assertEqual({**made, "function_version": 2, "updated_at": changed["updated_at"]}, changed)
        self.assertIsNotNone(changed["updated_at"])
        changed = self.ok(200, self.api.put("/v1/aliases/prod", {"description": "e", "name": "ignored"}))
        self.assertEqual(
            ("prod", "e", 2), (changed["name"], changed["description"], changed["function_version"])
        )
        other = self.versioned()
        self.assertEqual(other["id"], self.change(function_id=other["id"])["function_id"])

    def test_names_that_paths_must_quote(self) -> None:
        for version, (name, path) in enumerate((("a b", "a%20b"), ("ü?#", "%C3%BC%3F%23"), ("50%", "50%25"))):
            self.make(name, version)
            self.assertEqual(name, self.ok(200, self.api.get(f"/v1/aliases/{path}"))["name"])
            self.assertEqual(version, self.output(self.call(name)))

    def test_aliases_that_do_not_exist(self) -> None:
        for name in ("nobody", "prod%20", "%00", "%FF", "x" * 300):
            path = f"/v1/aliases/{name}"
            for answer in (
                self.api.get(path),
                self.api.put(path, {"description": "x"}),
                self.api.delete(path),
            ):
                self.refused(404, "not_found", answer)
        self.refused(405, "method_not_allowed", self.api.post("/v1/aliases/nobody", {}))

    def test_a_deleted_alias_is_gone_at_once(self) -> None:
        self.make()
        self.call()
        answer = self.api.delete("/v1/aliases/prod")
        self.assertEqual((204, b""), (answer.status_code, answer.content))
        self.refused(404, "not_found", self.api.get("/v1/aliases/prod"))
        self.refused(404, "not_found", self.api.delete("/v1/aliases/prod"))
        self.refused(404, "not_found", self.api.post("/v1/executions", {"function_alias": "prod"}), "alias")

    def test_what_it_leads_to_is_protected(self) -> None:
        self.make()
        self.make("canary", None, routes=[route(0, 1), route(2, 1)])
        path = f"/v1/functions/{self.function['id']}"
        self.refused(403, "in_use", self.api.delete(path), "alias canary")
        for version in (1, 2):
            self.refused(403, "in_use", self.api.delete(f"{path}/versions/{version}"))
        self.ok(204, self.api.delete("/v1/aliases/canary"))
        self.ok(204, self.api.delete(f"{path}/versions/2"))
        self.change(function_version=0)
        self.ok(204, self.api.delete(f"{path}/versions/1"))
        self.ok(204, self.api.delete("/v1/aliases/prod"))
        self.ok(204, self.api.delete(path))

    def test_of_five_posts_at_once_one_makes_an_alias(self) -> None:
        apis = [self.caller(token_of(self.project)) for _ in range(5)]
        body = {"name": "prod", "function_id": self.function["id"]}
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda api: api.post("/v1/aliases", body), apis))
        self.assertEqual([201, 400, 400, 400, 400], sorted(each.status_code for each in answers))


class ListTests(AliasTest):
    def setUp(self) -> None:
        super().setUp()
        for version, name in enumerate(("b", "a", "c")):
            self.make(name, version)

    def test_pages_order_and_filters(self) -> None:
        self.assertEqual(["b", "a", "c"], self.names())
        page = self.ok(200, self.api.get("/v1/aliases", limit=2))
        self.assertEqual(
            ["c"], [a["name"] for a in self.ok(200, self.api("GET", page["next"]))["function_aliases"]]
        )
        self.assertEqual(["c", "b", "a"], self.names(sort_key="name", sort_dir="desc"))
        self.assertEqual(["a"], self.names(name="a"))
        self.assertEqual(["b", "a", "c"], self.names(function_id=self.function["id"]))
        for query in ({"colour": "red"}, {"all_projects": "x"}, {"sort_key": "sole"}):
            self.refused(400, "invalid_request", self.api.get("/v1/aliases", **query))

    def test_all_projects_is_for_admins(self) -> None:
        self.refused(403, "forbidden", self.api.get("/v1/aliases", all_projects="true"))
        self.assertEqual(["b", "a", "c"], self.names(all_projects="false"))
        listed = self.ok(200, self.admin.get("/v1/aliases", all_projects="true"))["function_aliases"]
        self.assertIn(self.project, {each["project_id"] for each in listed})
        self.assertEqual(["b", "a", "c"], self.names(self.admin, project_id=self.project))
        self.assertEqual([], self.names(self.admin))

    def test_project_id_changes_nothing_for_others(self) -> None:
        _, other = self.member()
        self.assertEqual([], self.names(other, project_id=self.project))


class ProjectTests(AliasTest):
    def test_other_projects_see_and_call_nothing(self) -> None:
        self.make()
        _, other = self.member()
        for answer in (
            other.get("/v1/aliases/prod"),
            other.get("/v1/aliases/prod", project_id=self.project),
            other.put("/v1/aliases/prod", {"description": "x"}),
            other.delete("/v1/aliases/prod"),
            other.post("/v1/executions", {"function_alias": "prod"}),
        ):
            self.refused(404, "not_found", answer)

    def test_a_name_of_two_projects_leads_each_to_its_own(self) -> None:
        self.make()
        project, other = self.member()
        theirs = self.versioned(other)
        body = {"name": "prod", "function_id": theirs["id"], "function_version": 2}
        self.ok(201, other.post("/v1/aliases", body))
        self.assertEqual([1, 2], [self.output(self.call(api=api)) for api in (self.api, other)])
        # Whose it is, an admin must say where there are several.
        self.refused(409, "conflict", self.admin.get("/v1/aliases/prod"), "project_id")
        for name, version in ((self.project, 1), (project, 2)):
            shown = self.ok(200, self.admin.get("/v1/aliases/prod", project_id=name))
            self.assertEqual((name, version), (shown["project_id"], shown["function_version"]))
        self.ok(204, other.delete("/v1/aliases/prod"))
        self.refused(404, "not_found", other.post("/v1/executions", {"function_alias": "prod"}))
        self.assertEqual(self.project, self.ok(200, self.admin.get("/v1/aliases/prod"))["project_id"])

    def test_admins_change_and_delete_aliases_of_others_within_their_project(self) -> None:
        self.make("mine")
        self.assertEqual(1, self.output(self.call("mine")))
        path = f"/v1/aliases/mine?project_id={self.project}"
        self.ok(200, self.admin.put(path, {"function_version": 2}))
        self.assertEqual(2, self.output(self.call("mine")))
        self.refused(404, "not_found", self.admin.post("/v1/executions", {"function_alias": "mine"}))
        self.ok(204, self.admin.delete(path))
        self.refused(404, "not_found", self.api.get("/v1/aliases/mine"))


class ExecutionTests(AliasTest):
    def test_the_record_says_what_was_called_and_what_ran(self) -> None:
        self.make()
        done = self.call(input='{"a": 1}', description="d")
        later = self.finished(self.call(sync=False))
        for execution in (done, later):
            self.assertEqual(1, self.output(execution))
            shown = self.ok(200, self.api.get(f"/v1/executions/{execution['id']}"))
            self.assertEqual(
                (self.function["id"], 1, "prod"),
                (shown["function_id"], shown["function_version"], shown["function_alias"]),
            )
        listed = self.ok(200, self.api.get("/v1/executions", function_id=self.function["id"]))["executions"]
        self.assertEqual(["prod", "prod"], [each["function_alias"] for each in listed])

    def test_the_alias_wins_over_what_is_sent_with_it(self) -> None:
        self.make()
        for fields in (
            {"function_id": None, "function_version": None},
            {"function_id": self.function["id"], "function_version": 2},
            {"function_id": str(uuid.uuid4())},
        ):
            self.assertEqual(1, self.output(self.call(**fields)))

    def test_a_change_leads_the_next_call_elsewhere(self) -> None:
        self.make()
        for version in (2, 0, 1, 2):
            self.change(function_version=version)
            self.assertEqual(version, self.output(self.call()))

    def test_a_change_of_another_server_is_known_within_about_a_second(self) -> None:
        self.make()
        self.call()
        identity = Identity(self.project, "somebody", frozenset({"member"}))
        self.platform.services.aliases.update(identity, "prod", Changes(function_version=2))
        until(lambda: self.output(self.call()) == 2, "the change is known", 2.0)
        self.platform.services.aliases.delete(identity, "prod")
        gone = {"function_alias": "prod"}
        until(lambda: self.api.post("/v1/executions", gone).status_code == 404, "the end is known", 2.0)

    def test_a_version_that_another_server_deleted_after_leading_the_alias_elsewhere(self) -> None:
        self.make()
        self.call()
        identity = Identity(self.project, "somebody", frozenset({"member"}))
        services = self.platform.services
        services.aliases.update(identity, "prod", Changes(function_version=2))
        services.versions.delete(identity, self.function["id"], 1)
        # This server's alias may be older than its route.
        self.platform.invocation.router.changed(self.function["id"])
        self.assertEqual(2, self.output(self.call()))

    def test_names_that_are_none(self) -> None:
        for name in ("nobody", "", "a/b", "x" * 255):
            answer = self.api.post("/v1/executions", {"function_alias": name})
            self.refused(404, "not_found", answer, "Function alias not found")
        for name in (7, "x" * 256, "a\0"):
            answer = self.api.post("/v1/executions", {"function_alias": name})
            self.refused(400, "invalid_request", answer)

    def test_a_queued_call_runs_what_the_alias_led_to_when_it_was_made(self) -> None:
        self.make()
        queued = self.call(sync=False)
        self.change(function_version=2)
        self.assertEqual((1, 1), (queued["function_version"], self.output(self.finished(queued))))


class WeightTests(AliasTest):
    def test_weights_are_shown_and_the_first_version_is_the_main_one(self) -> None:
        routes = [route(1, 90), route(2, 10)]
        made = self.make(version=None, routes=routes)
        self.assertEqual((1, routes), (made["function_version"], made["routes"]))
        self.assertEqual(routes, self.ok(200, self.api.get("/v1/aliases"))["function_aliases"][0]["routes"])
        self.assertEqual(2, self.change(function_version=2, routes=routes)["function_version"])

    def test_calls_are_shared_exactly(self) -> None:
        self.make(version=None, routes=[route(1, 7), route(2, 2), route("0", "1")])
        versions = collections.Counter(self.call()["function_version"] for _ in range(40))
        self.assertEqual({1: 28, 2: 8, 0: 4}, versions)

    def test_calls_run_what_their_records_say(self) -> None:
        self.make(version=None, routes=[route(1, 1), route(2, 1)])
        for sync in (True, False):
            calls = [self.call(sync=sync) for _ in range(4)]
            self.assertEqual({1: 2, 2: 2}, collections.Counter(each["function_version"] for each in calls))
            for each in calls:
                ended = each if sync else self.finished(each)
                self.assertEqual(each["function_version"], self.output(ended))

    def test_a_canary(self) -> None:
        self.make()
        self.assertEqual({1}, {self.output(self.call()) for _ in range(4)})
        self.change(routes=[route(1, 3), route(2, 1)])
        self.assertEqual([1, 1, 1, 2], sorted(self.output(self.call()) for _ in range(4)))
        changed = self.change(function_version=2)
        self.assertEqual((2, None), (changed["function_version"], changed["routes"]))
        self.assertEqual({2}, {self.output(self.call()) for _ in range(4)})

    def test_an_empty_list_ends_the_sharing(self) -> None:
        self.make(version=2, routes=[route(1, 3), route(2, 1)])
        changed = self.change(routes=[])
        self.assertEqual((2, None), (changed["function_version"], changed["routes"]))
        self.assertIsNone(self.make("other", 1, routes=[])["routes"])

    def test_a_description_leaves_the_shares(self) -> None:
        routes = [route(1, 3), route(2, 1)]
        self.make(version=None, routes=routes)
        self.assertEqual(routes, self.change(description="x", routes=None)["routes"])

    def test_routes_that_cannot_be_used(self) -> None:
        self.make("other")
        for routes in (
            "1=1",
            [1],
            [{}],
            [{"function_version": 1}],
            [{"weight": 1}],
            [route(1, 0)],
            [route(1, -1)],
            [route(1, 10_001)],
            [route(1, 0.5)],
            [route(1, None)],
            [route(-1, 1)],
            [route(1, 1), route(1, 2)],
            [{**route(1, 1), "colour": "red"}],
            [route(n, 1) for n in range(101)],
        ):
            for answer in (
                self.post(version=None, routes=routes),
                self.api.put("/v1/aliases/other", {"routes": routes}),
            ):
                self.refused(400, "invalid_request", answer)
        self.refused(400, "invalid_request", self.post(version=0, routes=[route(1, 1)]), "function_version 0")
        self.refused(404, "not_found", self.post(version=None, routes=[route(1, 1), route(7, 1)]))

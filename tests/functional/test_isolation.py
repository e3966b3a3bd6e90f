"""Who may do what: projects, admins, other projects (API.md section 11), operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from tests.functional.platform import Api, ApiTest, until

Call = Callable[[Api, dict[str, str]], httpx.Response]

ON_ONE: dict[str, tuple[Call, int | None, int]] = {
    # operation on the owner's resource: what the owner gets (None: as others, for it is an admin's), an admin
    "runtime:get": (lambda api, ids: api.get(f"/v1/runtimes/{ids['runtime']}"), 200, 200),
    "function:get": (lambda api, ids: api.get(f"/v1/functions/{ids['function']}"), 200, 200),
    "function:download": (
        lambda api, ids: api.get(f"/v1/functions/{ids['function']}", download="1"),
        200,
        200,
    ),
    "function:update": (
        lambda api, ids: api.put(f"/v1/functions/{ids['function']}", {"name": "x"}),
        200,
        200,
    ),
    "execution:create": (
        lambda api, ids: api.post("/v1/executions", {"function_id": ids["function"]}),
        201,
        201,
    ),
    "execution:get": (lambda api, ids: api.get(f"/v1/executions/{ids['execution']}"), 200, 200),
    "execution:log": (lambda api, ids: api.get(f"/v1/executions/{ids['execution']}/log"), 200, 200),
    "execution:delete": (lambda api, ids: api.delete(f"/v1/executions/{ids['spare']}"), 204, 404),
    "function:delete": (lambda api, ids: api.delete(f"/v1/functions/{ids['other']}"), 204, 404),
}
ADMIN_ONLY: dict[str, tuple[Call, int]] = {
    "runtime:create": (lambda api, ids: api.post("/v1/runtimes", {"image": "python"}), 201),
    "runtime:update": (lambda api, ids: api.put(f"/v1/runtimes/{ids['runtime']}", {"name": "x"}), 200),
    "runtime:pool": (lambda api, ids: api.get(f"/v1/runtimes/{ids['runtime']}/pool"), 200),
    "runtime:delete": (lambda api, ids: api.delete(f"/v1/runtimes/{ids['runtime']}"), 403),
    "workers": (lambda api, ids: api.get(f"/v1/functions/{ids['function']}/workers"), 200),
    "scale_up": (lambda api, ids: api.post(f"/v1/functions/{ids['function']}/scale_up", {"count": 1}), 202),
    "scale_down": (
        lambda api, ids: api.post(f"/v1/functions/{ids['function']}/scale_down", {"count": 1}),
        202,
    ),
    "detach": (lambda api, ids: api.post(f"/v1/functions/{ids['function']}/detach"), 202),
    "functions:all": (lambda api, ids: api.get("/v1/functions", all_projects="true"), 200),
    "executions:all": (lambda api, ids: api.get("/v1/executions", all_projects="true"), 200),
}


class IsolationTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        _, self.foreign = self.member()
        function = self.create()
        self.ids = {
            "runtime": self.shared_runtime(),
            "function": function["id"],
            "other": self.create()["id"],
            "execution": self.execute(function)["id"],
            "spare": self.execute(function)["id"],
        }

    def test_what_another_project_has_is_not_found(self) -> None:
        for name, (call, _, _) in ON_ONE.items():
            if name != "runtime:get":
                answer = call(self.foreign, self.ids)
                self.refused(404, "not_found", answer, "not found")
        self.refused(404, "not_found", self.foreign.get(f"/v1/runtimes/{self.runtime(is_public=False)}"))

    def test_what_a_project_has_is_its_own(self) -> None:
        for name, (call, status, _) in ON_ONE.items():
            self.assertEqual(status, call(self.api, self.ids).status_code, name)

    def test_an_admin_reaches_single_resources_of_every_project(self) -> None:
        for name, (call, _, status) in ON_ONE.items():
            if status == 404:
                continue
            self.assertEqual(status, call(self.admin, self.ids).status_code, name)
        self.ok(204, self.admin.delete(f"/v1/executions/{self.ids['spare']}"))

    def test_admin_only_operations_are_403_for_members(self) -> None:
        for call, _ in ADMIN_ONLY.values():
            for api in (self.api, self.foreign):
                self.refused(403, "forbidden", call(api, self.ids), "Operation not allowed")

    def test_admin_only_operations_work_for_admins(self) -> None:
        for name, (call, status) in ADMIN_ONLY.items():
            self.assertEqual(status, call(self.admin, self.ids).status_code, name)

    def test_nobody_gets_anything_without_a_token(self) -> None:
        nobody = self.caller(None)
        for call in [each[0] for each in (*ON_ONE.values(), *ADMIN_ONLY.values())]:
            self.refused(401, "unauthenticated", call(nobody, self.ids))

    def test_an_execution_by_an_admin_belongs_to_the_admins_project(self) -> None:
        execution = self.execute({"id": self.ids["function"]}, api=self.admin)
        self.assertEqual("admins", execution["project_id"])
        self.refused(404, "not_found", self.api.get(f"/v1/executions/{execution['id']}"))


class ProjectListTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.other_project, self.other = self.member()
        self.mine, self.theirs = self.create()["id"], self.create(api=self.other)["id"]
        self.my_run = self.execute({"id": self.mine})["id"]
        self.their_run = self.execute({"id": self.theirs}, api=self.other)["id"]

    def listed(self, api: Api, kind: str, **query: Any) -> set[str]:
        known = {self.mine, self.theirs, self.my_run, self.their_run}
        return {each["id"] for each in self.ok(200, api.get(f"/v1/{kind}", **query))[kind]} & known

    def test_lists_show_the_callers_project(self) -> None:
        self.assertEqual({self.mine}, self.listed(self.api, "functions"))
        self.assertEqual({self.my_run}, self.listed(self.api, "executions"))
        for kind in ("functions", "executions"):
            self.assertEqual(set(), self.listed(self.admin, kind))

    def test_admins_may_ask_for_all_projects(self) -> None:
        for word in ("true", "True", "1", "yes", "on"):
            self.assertEqual(
                {self.mine, self.theirs}, self.listed(self.admin, "functions", all_projects=word)
            )
        self.assertEqual(
            {self.my_run, self.their_run}, self.listed(self.admin, "executions", all_projects="1")
        )

    def test_false_means_false(self) -> None:
        for word in ("false", "False", "0", "no", "off", ""):
            self.assertEqual({self.mine}, self.listed(self.api, "functions", all_projects=word))
            self.assertEqual(set(), self.listed(self.admin, "executions", all_projects=word))

    def test_what_is_no_boolean_is_400(self) -> None:
        for api in (self.api, self.admin):
            for kind in ("functions", "executions"):
                answer = api.get(f"/v1/{kind}", all_projects="perhaps")
                self.refused(400, "invalid_request", answer, "all_projects")

    def test_an_admin_filters_by_project(self) -> None:
        for query in (
            {"project_id": self.project},
            {"project_id": f"eq:{self.project}"},
            {"project_id": self.project, "all_projects": "true"},
            {"project_id": f"in:{self.project},nobody"},
        ):
            self.assertEqual({self.mine}, self.listed(self.admin, "functions", **query))
            self.assertEqual({self.my_run}, self.listed(self.admin, "executions", **query))
        both = f"in:{self.project},{self.other_project}"
        self.assertEqual({self.mine, self.theirs}, self.listed(self.admin, "functions", project_id=both))

    def test_a_member_gets_the_own_project_whatever_is_asked(self) -> None:
        for word in (self.project, self.other_project, "neq:x", "in:a,b", ""):
            self.assertEqual({self.mine}, self.listed(self.api, "functions", project_id=word))
            self.assertEqual({self.my_run}, self.listed(self.api, "executions", project_id=word))

    def test_members_may_not_ask_for_all_projects_even_of_their_own(self) -> None:
        answer = self.api.get("/v1/functions", all_projects="true", project_id=self.project)
        self.refused(403, "forbidden", answer, "Operation not allowed")

    def test_a_marker_of_another_project_is_no_marker(self) -> None:
        self.refused(400, "invalid_request", self.api.get("/v1/functions", marker=self.theirs), "marker")
        self.refused(400, "invalid_request", self.api.get("/v1/executions", marker=self.their_run), "marker")

    def test_workers_of_others_are_not_counted(self) -> None:
        workers = f"/v1/functions/{self.theirs}/workers"
        found = until(lambda: self.ok(200, self.admin.get(workers))["workers"], "the worker is listed")
        self.assertEqual({self.theirs}, {each["function_id"] for each in found})

"""Discovery, health, the API document, and the shape of every error (API.md sections 1 and 2)."""

from __future__ import annotations

import re
import uuid

import jsonschema

from funcplat.api import app
from tests.functional.platform import ApiTest


class DiscoveryTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.nobody = self.caller(None)
        self.wrong = self.caller("a token that nobody gave")

    def test_the_versions_are_listed_without_a_token(self) -> None:
        version = self.ok(200, self.nobody.get("/"))["versions"][0]
        self.assertEqual(("v1.0", "CURRENT"), (version["id"], version["status"]))
        link = {"href": f"{self.nobody.endpoint}/v1", "target": "v1", "rel": "self"}
        self.assertEqual([link], version["links"])

    def test_version_1_says_where_it_is(self) -> None:
        self.assertEqual({"uri": f"{self.nobody.endpoint}/v1"}, self.ok(200, self.nobody.get("/v1/")))

    def test_version_1_without_its_slash_is_a_redirect(self) -> None:
        answer = self.nobody.get("/v1")
        self.assertEqual(
            (302, f"{self.nobody.endpoint}/v1/"), (answer.status_code, answer.headers["Location"])
        )

    def test_paths_that_the_old_server_did_not_have_are_not_found(self) -> None:
        for path in ("/versions", "/v2", "/v1/nothing", "/v1/functions/x/y/z", "/v1/executions/x/logs"):
            self.refused(404, "not_found", self.admin.get(path), path)

    def test_health_and_readiness_need_no_token(self) -> None:
        self.assertEqual({"status": "ok"}, self.ok(200, self.nobody.get("/healthz")))
        self.assertEqual("ok", self.ok(200, self.nobody.get("/readyz"))["status"])

    def test_all_else_needs_a_token(self) -> None:
        unknown = uuid.uuid4()
        for api in (self.nobody, self.wrong):
            for path in ("/v1/functions", f"/v1/runtimes/{unknown}", "/v1//executions", "/v1/nothing"):
                answer = api.get(path)
                self.refused(401, "unauthenticated", answer)
                self.assertTrue(answer.headers["WWW-Authenticate"])

    def test_a_wrong_method_is_405_and_says_which_are_possible(self) -> None:
        for method, path, allowed in (
            ("PUT", "/v1/functions", "GET, POST"),
            ("DELETE", "/v1/runtimes", "GET, POST"),
            ("PUT", f"/v1/executions/{uuid.uuid4()}", "DELETE, GET"),
            ("GET", f"/v1/functions/{uuid.uuid4()}/detach", "POST"),
            ("HEAD", "/v1/functions", "GET, POST"),
            ("PATCH", "/v1/functions", "GET, POST"),
        ):
            answer = self.admin.http.request(method, self.admin.endpoint + path)
            self.assertEqual(405, answer.status_code, f"{method} {path}")
            self.assertEqual("application/json", answer.headers["content-type"])
            self.assertEqual(set(allowed.split(", ")), set(answer.headers["Allow"].split(", ")) - {"OPTIONS"})
            if method != "HEAD":
                self.refused(405, "method_not_allowed", answer, "GET" if "GET" in allowed else "POST")

    def test_collections_have_a_second_path_with_a_slash_and_slashes_may_be_doubled(self) -> None:
        function = self.create()
        for path in ("/v1/functions", "/v1/functions/", "/v1//functions", "//v1/functions//"):
            listed = self.ok(200, self.api.get(path))["functions"]
            self.assertEqual([function["id"]], [each["id"] for each in listed])
        for path in (f"/v1/functions/{function['id']}/", f"/v1//functions//{function['id']}"):
            self.assertEqual(function["id"], self.ok(200, self.api.get(path))["id"])
        body = {"function_id": function["id"]}
        for path in ("/v1/executions/", "/v1//executions", "/v1/executions"):
            self.assertEqual("success", self.ok(201, self.api.post(path, body))["status"])
        workers = f"/v1/functions/{function['id']}/workers/"
        self.assertEqual(1, len(self.ok(200, self.admin.get(workers, function_version=0))["workers"]))

    def test_request_ids_differ(self) -> None:
        ids = {self.nobody.get("/healthz").headers["x-openstack-request-id"] for _ in range(5)}
        self.assertEqual(5, len(ids))


class DocumentTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.document = self.ok(200, self.caller(None).get("/v1/openapi.json"))

    def test_it_describes_every_route_and_method_and_no_other(self) -> None:
        described = {
            (path, method.upper()) for path, methods in self.document["paths"].items() for method in methods
        }
        served = {(route.path, method) for route in app.ROUTES for method in route.methods}
        self.assertEqual(served, described)

    def test_its_references_lead_somewhere(self) -> None:
        names = set(re.findall(r"'#/components/schemas/(\w+)'", repr(self.document)))
        self.assertEqual(set(), names - self.document["components"]["schemas"].keys())
        self.assertIn("FunctionView", names)

    def test_operations_have_ids_of_their_own(self) -> None:
        ids = [method["operationId"] for path in self.document["paths"].values() for method in path.values()]
        self.assertEqual(len(ids), len(set(ids)))

    def test_its_schemas_are_valid_and_answers_keep_to_them(self) -> None:
        function = self.create()
        execution = self.execute(function)
        runtime = self.ok(200, self.api.get(f"/v1/runtimes/{function['runtime_id']}"))
        error = self.api.get(f"/v1/functions/{uuid.uuid4()}").json()
        for name, value in (
            ("FunctionView", function),
            ("ExecutionView", execution),
            ("RuntimeView", runtime),
            ("ErrorView", error),
        ):
            schema = {
                "$ref": f"#/components/schemas/{name}",
                "components": self.document["components"],
            }
            jsonschema.Draft202012Validator.check_schema(self.document["components"]["schemas"][name])
            jsonschema.Draft202012Validator(schema).validate(value)
            self.assertEqual(
                set(self.document["components"]["schemas"][name]["properties"]), set(value), name
            )

"""The API's document: valid, whole, and in step with the routes."""

from __future__ import annotations

import json
import re

import jsonschema
import testtools

from funcplat.api import app, openapi


class OpenApiTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.document = openapi.document()
        self.operations = {
            (method, path): operation
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }

    def test_it_is_json(self) -> None:
        self.assertEqual(self.document, json.loads(json.dumps(self.document)))

    def test_it_says_which_version_of_openapi_it_is(self) -> None:
        self.assertEqual("3.1.0", self.document["openapi"])

    def test_every_schema_is_a_valid_json_schema(self) -> None:
        for schema in self.document["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_every_reference_leads_somewhere(self) -> None:
        known = self.document["components"]["schemas"]
        references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(self.document))
        self.assertNotEqual([], references)
        self.assertLessEqual(set(references), set(known))

    def test_ids_of_operations_are_unique(self) -> None:
        ids = [operation["operationId"] for operation in self.operations.values()]
        self.assertEqual(len(ids), len(set(ids)))

    def test_parameters_in_paths_are_declared(self) -> None:
        for (_, path), operation in self.operations.items():
            declared = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            self.assertEqual(set(re.findall(r"{(\w+)}", path)), declared, path)

    def test_every_operation_of_a_project_needs_a_token_and_the_others_none(self) -> None:
        open_paths = {"/", "/healthz", "/readyz", "/metrics", "/v1", "/v1/openapi.json"}
        open_paths.add("/v1/webhooks/{webhook_id}/invoke")
        for (_, path), operation in self.operations.items():
            self.assertEqual(path in open_paths, operation["security"] == [], path)

    def test_every_answer_has_a_description(self) -> None:
        for operation in self.operations.values():
            for answer in operation["responses"].values():
                self.assertTrue(answer["description"])

    def test_every_operation_has_one_success(self) -> None:
        for key, operation in self.operations.items():
            found = [status for status in operation["responses"] if status.startswith("2")]
            self.assertEqual(1, len(found), key)

    def test_lists_can_be_paged(self) -> None:
        for path in ("/v1/runtimes", "/v1/functions", "/v1/executions", "/v1/jobs", "/v1/webhooks"):
            names = {each["name"] for each in self.operations["get", path]["parameters"]}
            self.assertLessEqual({"limit", "marker", "sort_key", "sort_dir"}, names)

    def test_errors_are_of_one_shape(self) -> None:
        view = self.document["components"]["schemas"]["ErrorView"]
        self.assertLessEqual({"faultstring", "code", "message", "request_id"}, set(view["required"]))

    def test_it_has_every_route_and_method_and_no_other(self) -> None:
        documented = {(method, re.sub(r"{\w+}", "{}", path)) for method, path in self.operations}
        self.assertEqual(routed(), documented)


def routed() -> set[tuple[str, str]]:
    """Methods and paths that the application serves."""
    return {
        (method.lower(), re.sub(r"{[^}]*}", "{}", route.path))
        for route in app.ROUTES
        for method in route.methods
    }

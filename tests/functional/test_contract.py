"""The server and its OpenAPI document say the same: requests made of the document, answers checked by it.

Schemathesis makes the requests, those that the document allows and those that it does not.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

from funcplat.api import openapi
from tests.functional.platform import ADMIN, ApiTest

EXAMPLES = 12
"""Requests of each kind for each operation."""
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def operations(document: dict[str, Any]) -> Iterator[Any]:
    for found in schemathesis.openapi.from_dict(copy.deepcopy(document)).get_all_operations():
        yield found.ok()


class ContractTest(ApiTest):
    options: ClassVar[dict[str, dict[str, Any]]] = {"scaling": {"max_workers_per_function": 2}}

    def setUp(self) -> None:
        super().setUp()
        self.api = self.admin  # who may do everything with what is its own

    def seed(self) -> dict[str, Any]:
        """Ids and names of one of everything, new, by the names that paths have for them."""
        function = self.create()["id"]
        self.ok(201, self.api.post(f"/v1/functions/{function}/versions", {}))
        name = f"a{uuid.uuid4().hex}"
        self.ok(201, self.api.post("/v1/aliases", {"name": name, "function_id": function}))
        job = {"function_id": function, "pattern": "0 0 1 1 *", "count": 3}
        return {
            "function_id": function,
            "version_number": 1,
            "alias_name": name,
            "name": name,
            "runtime_id": self.runtime(),
            "execution_id": self.execute({"id": function})["id"],
            "job_id": self.ok(201, self.api.post("/v1/jobs", job))["id"],
            "webhook_id": self.ok(201, self.api.post("/v1/webhooks", {"function_id": function}))["id"],
        }

    def check(self, operation: Any, mode: GenerationMode) -> int:
        """Send requests of one kind; returns the number of them that were not refused."""
        accepted = 0
        seeded = self.seed()
        given = {name: seeded[name] for name in re.findall(r"{(\w+)}", operation.path) if name in seeded}
        known = operation.as_strategy(generation_mode=mode, path_parameters=given) if given else st.nothing()

        @SETTINGS
        @hypothesis.given(known | operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            nonlocal accepted
            case.headers = {**(case.headers or {}), "X-Auth-Token": ADMIN}
            if case.query:
                case.query.pop("wait", None)  # to be answered late is not what this looks for
            answer = case.call(base_url=self.platform.endpoint, timeout=30)
            case.validate_response(answer, checks=CHECKS)
            accepted += answer.status_code < 400

        send()
        self.api.post(f"/v1/functions/{seeded['function_id']}/detach")  # workers make room for others
        return accepted


class DocumentTests(ContractTest):
    def test_every_answer_to_what_the_document_allows_is_documented(self) -> None:
        accepted = {
            operation.label: self.check(operation, GenerationMode.POSITIVE)
            for operation in operations(openapi.document())
        }
        never = {label for label, number in accepted.items() if not number}
        self.assertEqual(set(), {label for label in never if label.startswith("GET ")}, accepted)

    def test_every_answer_to_what_it_does_not_allow_is_documented(self) -> None:
        for operation in operations(openapi.document()):
            if operation.body or len(list(operation.iter_parameters())):
                self.check(operation, GenerationMode.NEGATIVE)


class TheseChecksTests(ContractTest):
    """A document that is wrong is found out."""

    def wrong(self, change: Any) -> None:
        document = copy.deepcopy(openapi.document())
        change(document["paths"]["/v1/functions"]["get"]["responses"])
        (operation,) = (each for each in operations(document) if each.label == "GET /v1/functions")
        self.create()
        self.assertRaises(FailureGroup, self.check, operation, GenerationMode.POSITIVE)

    def test_an_answer_that_is_not_documented_is_found(self) -> None:
        self.wrong(lambda responses: responses.pop("200"))

    def test_a_field_of_another_type_is_found(self) -> None:
        def change(responses: dict[str, Any]) -> None:
            wrong = {"type": "object", "properties": {"functions": {"type": "string"}}}
            responses["200"]["content"] = {"application/json": {"schema": wrong}}

        self.wrong(change)

    def test_another_content_type_is_found(self) -> None:
        def change(responses: dict[str, Any]) -> None:
            responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}

        self.wrong(change)

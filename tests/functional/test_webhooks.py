"""Webhooks over HTTP (API.md section 10, and what this server adds)."""

from __future__ import annotations

import base64
import datetime
import time
import uuid
from typing import Any

import hypothesis
import sqlalchemy as sa
import standardwebhooks
from hypothesis import strategies as st

from funcplat.core import aliases
from funcplat.db import models
from tests.functional import core, test_any_request
from tests.functional.platform import Api, ApiTest

FIELDS = {
    "id",
    "function_id",
    "function_alias",
    "function_version",
    "description",
    "project_id",
    "created_at",
    "updated_at",
    "webhook_url",
}
ADDED = {"signed", "previous_secret_expires_at", "rate_limit", "rate_burst"}
ECHO = "def main(**kwargs):\n    kwargs.pop('context', None)\n    return kwargs\n"
CONTROLS = bytes({*range(32), 127})
KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()


def signed(
    secret: str, body: bytes, message_id: str = "", at: float | None = None, **more: str
) -> dict[str, str]:
    """The headers of a sender that uses the library of Standard Webhooks."""
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    moment = datetime.datetime.fromtimestamp(int(time.time() if at is None else at), datetime.UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(message_id, moment, body.decode()),
        **more,
    }


class WebhooksTest(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.function = self.create(ECHO)
        self.nobody = self.caller(None)

    def webhook(self, api: Api | None = None, **fields: Any) -> dict[str, Any]:
        if "function_alias" not in fields:
            fields.setdefault("function_id", self.function["id"])
        made: dict[str, Any] = self.ok(201, (api or self.api).post("/v1/webhooks", fields))
        return made

    def invoke(self, webhook: dict[str, Any], **more: Any) -> Any:
        """Call it as somebody without a token."""
        return self.nobody("POST", webhook["webhook_url"].removeprefix(self.platform.endpoint), **more)

    def got(self, answer: Any) -> Any:
        """What the function was given."""
        body = self.ok(202, answer)
        self.assertEqual({"execution_id"}, set(body))
        return self.output(self.finished({"id": body["execution_id"]}))


class WebhooksTests(WebhooksTest):
    def test_a_webhook_has_all_fields_of_the_wire(self) -> None:
        webhook = self.webhook(description="d")
        self.assertEqual(FIELDS | ADDED, set(webhook))
        path = f"/v1/webhooks/{webhook['id']}"
        expected = {
            "function_id": self.function["id"],
            "function_alias": None,
            "function_version": None,
            "description": "d",
            "project_id": self.project,
            "updated_at": None,
            "webhook_url": f"{self.platform.endpoint}{path}/invoke",
            "signed": False,
            "rate_limit": None,
        }
        self.assertEqual(expected, {name: webhook[name] for name in expected})
        self.assertEqual(webhook, self.ok(200, self.api.get(path)))
        self.assertEqual([webhook], self.ok(200, self.api.get("/v1/webhooks"))["webhooks"])
        self.assertEqual(0, self.webhook(function_version=0)["function_version"])

    def test_anybody_who_knows_the_url_may_call(self) -> None:
        webhook = self.webhook()
        answer = self.ok(202, self.invoke(webhook, json={"a": {"b": [1, None]}}))
        run = self.finished({"id": answer["execution_id"]})
        self.assertEqual({"a": {"b": [1, None]}}, self.output(run))
        self.assertEqual(
            (f"Created by Webhook {webhook['id']}", False, self.project),
            (run["description"], run["sync"], run["project_id"]),
        )

    def test_arguments_are_the_query_and_a_form_or_a_json_object(self) -> None:
        webhook = self.webhook()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        text = {"Content-Type": "text/plain"}
        for more, expected in (
            ({}, {}),
            ({"params": {"q": "1"}}, {"q": "1"}),
            ({"data": {"f": "x y"}}, {"f": "x y"}),
            ({"params": {"q": "1", "f": "2"}, "data": {"f": "3"}}, {"q": "1", "f": "3"}),
            ({"params": {"q": "1"}, "json": {"j": 2.5}}, {"q": "1", "j": 2.5}),
            ({"content": b"e=", "headers": form}, {"e": ""}),
            ({"files": {"m": (None, "part"), "file": ("f.txt", b"data")}}, {"m": "part"}),
            ({"json": [1, 2]}, {}),
            ({"content": b"plain", "headers": text}, {}),
            ({"content": b"{}", "headers": {"Content-Type": "application/cloudevents+json"}}, {}),
        ):
            self.assertEqual(expected, self.got(self.invoke(webhook, **more)), more)

    def test_a_body_that_cannot_be_read_is_400(self) -> None:
        webhook = self.webhook()
        for kind, content in (
            ("application/json", b"{nonsense"),
            ("application/json", b"[" * 100_000),
            ("application/json", b'{"a":' * 600 + b"1" + b"}" * 600),
            ("application/x-www-form-urlencoded", b"a=\xff"),
            ("multipart/form-data", b"x"),
            ("multipart/form-data; boundary=b", b"--b"),
        ):
            answer = self.invoke(webhook, content=content, headers={"Content-Type": kind})
            self.refused(400, "invalid_request", answer)

    def test_a_body_over_the_limit_is_413(self) -> None:
        self.refused(413, "too_large", self.invoke(self.webhook(), content=b"x" * (2**20 + 1)), "1048576")

    def test_what_is_no_webhook_is_404(self) -> None:
        path = f"/v1/webhooks/{self.webhook()['id']}"
        for where in (f"/v1/webhooks/{uuid.uuid4()}/invoke", "/v1/webhooks/abc/invoke"):
            self.refused(404, "not_found", self.nobody.post(where), "Webhook not found")
        self.refused(404, "not_found", self.nobody.get(f"{path}/invoke"))
        self.refused(401, "unauthenticated", self.nobody.get(path))
        self.refused(401, "unauthenticated", self.nobody.post(f"{path}/rotate"))
        self.ok(204, self.api.delete(path))
        self.refused(404, "not_found", self.nobody.post(f"{path}/invoke"))
        self.refused(404, "not_found", self.api.delete(path))

    def test_bad_input_is_400_and_says_what_is_wrong(self) -> None:
        function = self.function["id"]
        for body, word in (
            ({}, "function_alias"),
            ({"function_id": "abc"}, "uuid"),
            ({"function_id": function, "function_version": "x"}, "function_version"),
            ({"function_id": function, "description": "x" * 256}, "255"),
            ({"function_id": function, "rate_limit": -1}, "rate_limit"),
            ({"function_id": function, "rate_burst": 5}, "rate_limit"),
            ({"function_id": function, "secret": "whsec_short"}, "secret"),
            ({"function_id": function, "secret": KEY, "signed": False}, "secret"),
            ({"function_id": function, "webhook_url": "x"}, "Unknown attribute"),
            ({"function_id": function, "project_id": "x"}, "read only"),
        ):
            answer = self.refused(400, "invalid_request", self.api.post("/v1/webhooks", body), word)
            self.assertNotIn(KEY, str(answer))
        self.refused(400, "invalid_request", self.api.get("/v1/webhooks", colour="x"), "Unknown argument")
        self.refused(400, "invalid_request", self.api.get("/v1/webhooks/abc"), "uuid")

    def test_other_projects_and_admins(self) -> None:
        _, other = self.member()
        webhook = self.webhook()
        path = f"/v1/webhooks/{webhook['id']}"
        for api in (other, self.admin):
            self.refused(404, "not_found", api.put(path, {"description": "x"}), "Webhook not found")
            self.refused(404, "not_found", api.post(f"{path}/rotate", {}), "Webhook not found")
            answer = api.post("/v1/webhooks", {"function_id": self.function["id"]})
            self.refused(404, "not_found", answer, "Function not found")
        self.refused(404, "not_found", other.get(path))
        self.refused(404, "not_found", other.delete(path))
        self.assertEqual([], other.get("/v1/webhooks").json()["webhooks"])
        self.assertEqual(webhook, self.ok(200, self.admin.get(path)))
        listed = self.ok(200, self.admin.get("/v1/webhooks", all_projects="true"))["webhooks"]
        self.assertIn(webhook, listed)
        self.refused(403, "forbidden", self.api.get("/v1/webhooks", all_projects="true"))
        self.ok(204, self.admin.delete(path))

    def test_a_function_with_a_webhook_is_not_deleted(self) -> None:
        webhook = self.webhook()
        path = f"/v1/functions/{self.function['id']}"
        self.refused(403, "in_use", self.api.delete(path), webhook["id"])
        self.ok(200, self.api.put(path, data={"cpu": "500"}))
        self.ok(204, self.api.delete(f"/v1/webhooks/{webhook['id']}"))
        self.ok(204, self.api.delete(path))

    def test_a_runtime_that_is_not_available_is_409(self) -> None:
        function = self.create(ECHO, runtime_id=self.runtime())
        webhook = self.webhook(function_id=function["id"])
        self.change(models.runtimes, function["runtime_id"], status="error")
        self.refused(409, "runtime_not_available", self.invoke(webhook))

    def change(self, table: sa.Table, row_id: str, **values: Any) -> None:
        with self.platform.services.db.write() as connection:
            connection.execute(sa.update(table).where(table.c.id == row_id).values(values))

    # -- aliases and changes -------------------------------------------------------------------------------

    def alias(self, name: str, function: dict[str, Any]) -> None:
        identity = core.Identity(self.project, "somebody", frozenset())
        named = aliases.Aliases(self.platform.services.db)
        named.create(identity, aliases.NewAlias(name, function["id"]))

    def test_a_webhook_of_an_alias(self) -> None:
        self.alias("live", self.function)
        webhook = self.webhook(function_alias="live", function_id=self.function["id"], function_version=0)
        self.assertEqual(
            ("live", None, None), tuple(webhook[f"function_{x}"] for x in ("alias", "id", "version"))
        )
        answer = self.ok(202, self.invoke(webhook, json={"n": 1}))
        run = self.finished({"id": answer["execution_id"]})
        self.assertEqual(("live", self.function["id"]), (run["function_alias"], run["function_id"]))

    def test_an_alias_of_another_project_is_not_found(self) -> None:
        self.alias("live", self.function)
        _, other = self.member()
        self.refused(404, "not_found", other.post("/v1/webhooks", {"function_alias": "live"}), "alias")

    def test_changes(self) -> None:
        self.alias("live", self.function)
        other = self.create(ECHO)
        path = f"/v1/webhooks/{self.webhook()['id']}"

        def put(**body: Any) -> tuple[Any, ...]:
            nulls = dict.fromkeys(("function_id", "function_version", "description"))
            shown = self.ok(200, self.api.put(path, nulls | body))
            return tuple(
                shown[name] for name in ("function_id", "function_version", "function_alias", "description")
            )

        first = self.function["id"]
        self.assertEqual((first, None, None, "d"), put(description="d"))
        self.assertEqual((first, 0, None, "d"), put(function_version="0"))
        self.assertEqual((None, None, "live", "d"), put(function_alias="live"))
        self.assertEqual((None, None, "live", "e"), put(description="e"))
        self.refused(400, "invalid_request", self.api.put(path, {"function_version": 0}), "function_id")
        self.assertEqual((other["id"], None, None, "e"), put(function_id=other["id"]))
        for body in ({"function_version": 7}, {"function_alias": "x"}, {"function_id": str(uuid.uuid4())}):
            self.refused(404, "not_found", self.api.put(path, body))
        self.assertEqual((other["id"], None, None, "e"), put())


class SignedTests(WebhooksTest):
    def setUp(self) -> None:
        super().setUp()
        self.signed = self.webhook(signed=True)
        self.path = f"/v1/webhooks/{self.signed['id']}"
        self.secret = self.signed["secret"]

    def send(self, headers: dict[str, str], body: bytes = b"{}", **more: Any) -> Any:
        return self.invoke(self.signed, content=body, headers=headers, **more)

    def test_the_secret_is_shown_once(self) -> None:
        self.assertTrue(self.signed["signed"])
        self.assertRegex(self.secret, r"^whsec_[A-Za-z0-9+/]{43}=$")
        shown = self.ok(200, self.api.get(self.path))
        self.assertNotIn("secret", shown)
        for answer in (self.api.get("/v1/webhooks"), self.api.put(self.path, {"description": "d"})):
            self.assertNotIn(self.secret, answer.text)
        given = self.webhook(secret=KEY)
        self.assertEqual((True, KEY), (given["signed"], given["secret"]))

    def test_a_signed_call_runs_the_function_with_its_body_alone(self) -> None:
        body = b'{"a": "\xc3\xbc"}'
        answer = self.send(signed(self.secret, body), body, params={"b": "from the way"})
        self.assertEqual({"a": "ü"}, self.got(answer))

    def test_a_call_that_is_not_signed_or_not_so_is_403(self) -> None:
        good = signed(self.secret, b"{}")
        for headers, body in (
            ({}, b"{}"),
            ({**good, "webhook-signature": ""}, b"{}"),
            ({name: value for name, value in good.items() if name != "webhook-id"}, b"{}"),
            (signed(KEY, b"{}"), b"{}"),
            (good, b'{"a": 1}'),
            ({**good, "webhook-id": "another"}, b"{}"),
            ({**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}, b"{}"),
            ({**good, "webhook-timestamp": "0" + good["webhook-timestamp"]}, b"{}"),
            ({**good, "webhook-timestamp": "now"}, b"{}"),
            ({**good, "webhook-signature": good["webhook-signature"].replace("v1,", "v2,")}, b"{}"),
            (signed(self.secret, b"{}", "with.a.stop"), b"{}"),
            (signed(self.secret, b"{}", "x" * 256), b"{}"),
        ):
            self.refused(403, "signature_invalid", self.send(headers, body))
        self.assertEqual([], self.api.get("/v1/executions").json()["executions"])
        self.got(self.send(good))

    def test_one_signature_of_several_is_enough(self) -> None:
        headers = signed(self.secret, b"{}")
        headers["webhook-signature"] = f"v1,bm9uc2Vuc2U= v1a,x {headers['webhook-signature']}"
        self.got(self.send(headers))

    def test_a_timestamp_out_of_the_window_is_403(self) -> None:
        for off in (-400, 400):
            answer = self.send(signed(self.secret, b"{}", at=time.time() + off))
            self.refused(403, "timestamp_rejected", answer, "300 seconds")
        for off in (-200, 200):
            self.ok(202, self.send(signed(self.secret, b"{}", at=time.time() + off)))

    def test_a_call_is_not_run_again(self) -> None:
        headers = signed(self.secret, b"{}")
        self.got(self.send(headers))
        for _ in range(3):
            self.refused(409, "replayed", self.send(headers))
        self.assertEqual(1, len(self.api.get("/v1/executions").json()["executions"]))

    def test_a_sender_that_tries_again_gets_the_first_execution(self) -> None:
        now = time.time()
        first = self.ok(202, self.send(signed(self.secret, b"{}", "msg_1", now - 20)))
        later = signed(self.secret, b"{}", "msg_1", now - 10)
        self.assertEqual(first, self.ok(202, self.send(later)))
        self.refused(409, "replayed", self.send(later))
        self.assertEqual(1, len(self.api.get("/v1/executions").json()["executions"]))

    def test_ids_are_a_webhooks_own(self) -> None:
        other = self.webhook(secret=self.secret)
        headers = signed(self.secret, b"{}")
        first, second = (
            self.ok(202, self.send(headers)),
            self.ok(202, self.invoke(other, content=b"{}", headers=headers)),
        )
        self.assertNotEqual(first, second)

    def test_rotation_with_an_overlap(self) -> None:
        rotated = self.ok(200, self.api.post(f"{self.path}/rotate"))
        self.assertNotEqual(self.secret, rotated["secret"])
        self.assertRegex(rotated["previous_secret_expires_at"], "Z$")
        for secret in (self.secret, rotated["secret"]):
            self.ok(202, self.send(signed(secret, b"{}")))
        again = self.ok(200, self.api.post(f"{self.path}/rotate", {"secret": KEY, "overlap": 3600}))
        self.assertEqual(KEY, again["secret"])
        for secret in (rotated["secret"], KEY):
            self.ok(202, self.send(signed(secret, b"{}")))
        self.refused(403, "signature_invalid", self.send(signed(self.secret, b"{}")))

    def test_rotation_without_an_overlap(self) -> None:
        rotated = self.ok(200, self.api.post(f"{self.path}/rotate", {"overlap": 0}))
        self.refused(403, "signature_invalid", self.send(signed(self.secret, b"{}")))
        self.ok(202, self.send(signed(rotated["secret"], b"{}")))

    def test_rotations_that_cannot_be(self) -> None:
        for body in ({"overlap": -1}, {"overlap": "x"}, {"secret": "x"}, {"x": 1}):
            self.refused(400, "invalid_request", self.api.post(f"{self.path}/rotate", body))
        plain = self.webhook()
        self.refused(409, "conflict", self.api.post(f"/v1/webhooks/{plain['id']}/rotate"), "secret")

    def test_a_secret_may_be_set_and_removed_later(self) -> None:
        removed = self.ok(200, self.api.put(self.path, {"signed": False}))
        self.assertEqual((False, False), (removed["signed"], "secret" in removed))
        self.ok(202, self.send({}))
        same = self.ok(200, self.api.put(self.path, {"signed": False}))
        self.assertEqual(removed["updated_at"], same["updated_at"])
        made = self.ok(200, self.api.put(self.path, {"signed": True}))
        self.assertNotIn("secret", self.ok(200, self.api.put(self.path, {"signed": True})))
        self.refused(403, "signature_invalid", self.send({}))
        self.ok(202, self.send(signed(made["secret"], b"{}")))
        self.refused(400, "invalid_request", self.api.put(self.path, {"secret": KEY}), "rotate")


class RateTests(WebhooksTest):
    def test_calls_beyond_the_rate_are_429_and_say_when_to_come_back(self) -> None:
        webhook = self.webhook(rate_limit=6, rate_burst=2)
        self.assertEqual((6, 2), (webhook["rate_limit"], webhook["rate_burst"]))
        for _ in range(2):
            self.ok(202, self.invoke(webhook))
        answer = self.invoke(webhook)
        self.refused(429, "rate_limited", answer, "6 calls a minute")
        self.assertIn(int(answer.headers["Retry-After"]), range(1, 11))
        self.ok(202, self.invoke(self.webhook()))

    def test_tokens_come_back_with_time(self) -> None:
        webhook = self.webhook(rate_limit=120, rate_burst=1)
        self.ok(202, self.invoke(webhook))
        self.refused(429, "rate_limited", self.invoke(webhook))
        time.sleep(0.6)
        self.ok(202, self.invoke(webhook))

    def test_a_rate_may_be_changed_and_removed(self) -> None:
        webhook = self.webhook(rate_limit=1)
        path = f"/v1/webhooks/{webhook['id']}"
        self.ok(202, self.invoke(webhook))
        self.refused(429, "rate_limited", self.invoke(webhook))
        changed = self.ok(200, self.api.put(path, {"rate_burst": 3}))
        self.assertEqual((1, 3), (changed["rate_limit"], changed["rate_burst"]))
        for _ in range(3):
            self.ok(202, self.invoke(webhook))
        self.refused(429, "rate_limited", self.invoke(webhook))
        self.assertIsNone(self.ok(200, self.api.put(path, {"rate_limit": 0}))["rate_limit"])
        for _ in range(5):
            self.ok(202, self.invoke(webhook))

    def test_calls_that_are_not_signed_right_cost_the_sender_nothing(self) -> None:
        webhook = self.webhook(secret=KEY, rate_limit=1)
        for _ in range(3):
            self.refused(
                403, "signature_invalid", self.invoke(webhook, headers=signed("whsec_" + "x" * 32, b""))
            )
        self.ok(202, self.invoke(webhook, headers=signed(KEY, b"")))
        self.refused(429, "rate_limited", self.invoke(webhook, headers=signed(KEY, b"")))


class AnyWebhookTests(WebhooksTest):
    def test_no_body_is_a_500(self) -> None:
        names = st.sampled_from(sorted(FIELDS | ADDED | {"secret", "overlap", "x"}))
        values = test_any_request.JSON | st.sampled_from([KEY, 1, 60, True, False])
        path = f"/v1/webhooks/{self.webhook(signed=True)['id']}"

        @test_any_request.SETTINGS
        @hypothesis.given(
            st.sampled_from(["new", "change", "rotate", "invoke"]), st.dictionaries(names, values, max_size=6)
        )
        def send(what: str, body: dict[str, Any]) -> None:
            content = test_any_request.written(body)
            if what == "new":
                body.setdefault("function_id", self.function["id"])
                self.api.post("/v1/webhooks", content=test_any_request.written(body))
            elif what == "change":
                self.api.put(path, content=content)
            elif what == "rotate":
                self.api.post(f"{path}/rotate", content=content)
            else:
                self.nobody.post(f"{path}/invoke", content=content)

        send()
        self.ok(200, self.api.get("/v1/webhooks"))

    def test_no_call_is_a_500(self) -> None:
        path = f"/v1/webhooks/{self.webhook()['id']}/invoke"
        kinds = st.sampled_from(
            [
                "application/json",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=b",
                "multipart/form-data",
                "multipart/form-data; boundary=" + "b" * 100,
                "a/b+json",
                "\x7f",
                "",
            ]
        )
        part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n%s\r\n--b--\r\n'
        bodies = (
            st.binary(max_size=60)
            | st.builds(lambda data: part % data, st.binary(max_size=20))
            | st.builds(test_any_request.written, test_any_request.JSON)
        )

        @test_any_request.SETTINGS
        @hypothesis.given(
            kinds, bodies, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)
        )
        def send(kind: str, body: bytes, query: dict[str, str]) -> None:
            encoded = {
                name.encode("utf-8", "surrogatepass"): value.encode("utf-8", "surrogatepass")
                for name, value in query.items()
            }
            self.nobody("POST", path, content=body, headers={"Content-Type": kind}, params=encoded)

        send()

    def test_no_signature_is_a_500(self) -> None:
        path = f"/v1/webhooks/{self.webhook(secret=KEY)['id']}/invoke"
        values = st.binary(max_size=40).map(lambda data: data.translate(None, CONTROLS).strip())

        @test_any_request.SETTINGS
        @hypothesis.given(values, values, values)
        def send(message_id: bytes, timestamp: bytes, signature: bytes) -> None:
            headers = {
                b"webhook-id": message_id or b"m",
                b"webhook-timestamp": timestamp or b"1",
                b"webhook-signature": b"v1," + signature,
            }
            self.refused(403, "signature_invalid", self.nobody("POST", path, headers=headers))

        send()

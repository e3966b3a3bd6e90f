"""Servers whose clocks are minutes apart, on one database: what is due, leased or signed knows one time."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import testtools
from testtools.content import text_content

from funcplat.core import signatures
from tests import services
from tests.functional.platform import until
from tests.integration import killing

SKEW = 600.0
PATIENCE = 60.0
# The lease: no server that lives may be taken for dead, not on a machine that runs other tests either.
PLAN: dict[str, int] = {"apis": 2, "engines": 3, "lease": 10}


class ClocksTest(testtools.TestCase):
    database = "postgresql"

    def setUp(self) -> None:
        super().setUp()
        self.url = self.useFixture(services.database(self.database)).url

    def test_promises_about_time_hold_on_every_server(self) -> None:
        plan = killing.Plan(executions=0, kills=0, skew=SKEW, **PLAN)
        with killing.cluster(self.url, plan) as servers:
            self.servers = servers
            try:
                self.expect_promises()
            except BaseException:
                self.addDetail("servers", text_content(servers.last_words()))
                raise

    def expect_promises(self) -> None:
        self.function = self.servers.function()
        self.expect_wrong_clocks()
        self.expect_each_tick_once()
        self.expect_a_retry_in_time()
        self.expect_signatures_of_now_and_no_others()
        self.expect_a_key_to_count_everywhere()
        self.expect_what_dead_servers_ran_to_be_taken_up()

    # -- the promises --------------------------------------------------------------------------------------

    def each(self) -> Iterator[httpx.Client]:
        """A client of each API process."""
        for port in self.servers.ports:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
                yield client

    def expect_wrong_clocks(self) -> None:
        """The moment at which something was made is by the clock of the server that was asked."""
        body = {"function_id": self.function, "sync": False}
        made = [each.post("/v1/executions", json=body).json()["created_at"] for each in self.each()]
        now = datetime.datetime.now(datetime.UTC)
        ahead = [(datetime.datetime.fromisoformat(each) - now).total_seconds() for each in made]
        self.assertEqual([1, -1], [round(each / SKEW) for each in ahead], ahead)

    def expect_each_tick_once(self) -> None:
        body = {"function_id": self.function, "pattern": "* * * * * *", "count": 4}
        job = self.servers.create("/jobs", json=body)
        until(lambda: self.get(f"/jobs/{job['id']}")["status"] == "done", "the job is done", PATIENCE)
        time.sleep(2.0)  # nobody tells of a tick that should not be
        made = self.executions_of(job)
        for each in made:
            self.settled(each["id"])
        made = self.executions_of(job)
        # More than one attempt: a server that lives was taken for dead.
        self.assertEqual([("success", 1)] * 4, [(each["status"], each["attempts"]) for each in made], made)

    def expect_a_retry_in_time(self) -> None:
        began = time.monotonic()
        body = {
            "function_id": self.function,
            "sync": False,
            "input": {"seconds": "no number"},
            "retry": {"max_attempts": 2, "delay": 1},
        }
        made = self.servers.create("/executions", json=body)
        ended = self.settled(made["id"])
        self.assertEqual(("failed", 2), (ended["status"], ended["attempts"]), ended)
        self.assertLess(time.monotonic() - began, 30.0)

    def expect_signatures_of_now_and_no_others(self) -> None:
        webhook = self.servers.create("/webhooks", json={"function_id": self.function, "signed": True})
        answers = []
        for client in self.each():
            for age in (0.0, SKEW, -SKEW):
                message = signatures.Message(uuid.uuid4().hex, int(time.time() - age))
                body = b"{}"
                values = (message.id, str(message.sent_at), signatures.sign(webhook["secret"], message, body))
                headers = dict(zip(signatures.HEADERS, values, strict=True))
                answer = client.post(f"/v1/webhooks/{webhook['id']}/invoke", content=body, headers=headers)
                answers.append((answer.status_code, answer.json().get("code")))
        refused = (403, "timestamp_rejected")
        self.assertEqual([(202, None), refused, refused] * 2, answers)

    def expect_a_key_to_count_everywhere(self) -> None:
        body = json.dumps({"function_id": self.function, "sync": False})
        headers = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "application/json"}
        made = {
            each.post("/v1/executions", content=body, headers=headers).json()["id"] for each in self.each()
        }
        self.assertEqual(1, len(made))

    def expect_what_dead_servers_ran_to_be_taken_up(self) -> None:
        body = {"function_id": self.function, "sync": False, "input": {"seconds": 3}}
        made = self.servers.create("/executions", json=body)["id"]
        until(lambda: self.get(f"/executions/{made}")["phase"] == "running", "it runs", PATIENCE)
        # At once: who outlives the first of them may have taken the execution up before it is killed, too.
        self.servers.kill(*range(PLAN["apis"], PLAN["apis"] + PLAN["engines"]))
        ended = self.settled(made)
        self.assertEqual(("success", 2), (ended["status"], ended["attempts"]), ended)

    def get(self, path: str) -> Any:
        answer = self.servers.request("GET", path)
        assert answer is not None
        self.assertEqual(200, answer.status_code, answer.text)
        return answer.json()

    def executions_of(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"/executions?description=Created by Job {job['id']}")[
            "executions"
        ]
        return found

    def settled(self, execution_id: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.get(f"/executions/{execution_id}"))
            return bool(found["phase"] == "finished")

        try:
            until(ended, "it has ended", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {found}") from None
        return found


class MariaDBClocksTest(ClocksTest):
    database = "mariadb"

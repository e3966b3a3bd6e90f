"""``funcplat job`` and ``funcplat webhook`` against a running platform."""

from __future__ import annotations

import pathlib
import uuid
from typing import Any

import fixtures

from tests import cli_server
from tests.functional import test_webhooks
from tests.functional.platform import token_of


class CommandsTest(test_webhooks.WebhooksTest):
    def setUp(self) -> None:
        super().setUp()
        words = ("--quiet", "--token", token_of(self.project))
        self.cli = self.useFixture(cli_server.CommandLine(self.platform.endpoint, *words))
        self.named = self.create(test_webhooks.ECHO, name="echo")

    def succeed(self, *words: str) -> Any:
        result = self.cli(*words)
        self.assertEqual(0, result.code, result.err)
        return result

    def shown(self, *words: str) -> Any:
        return self.succeed(*words, "-f", "json").json


class JobCommandsTests(CommandsTest):
    def test_a_job_through_its_life(self) -> None:
        made = self.shown(
            *("job", "create", "echo", "--pattern", "0 9 * * mon-fri", "--time-zone", "Europe/Berlin"),
            *("--count", "3", "--name", "n", "--input", '{"a": 1}', "--missed", "skip"),
        )
        expected = {
            "function_id": self.named["id"],
            "pattern": "0 9 * * mon-fri",
            "time_zone": "Europe/Berlin",
            "count": 3,
            "name": "n",
            "function_input": {"a": 1},
            "missed_ticks": "skip",
            "status": "running",
        }
        self.assertEqual(expected, {name: made[name] for name in expected})
        job = made["id"]
        self.assertEqual(made, self.shown("job", "show", job))
        self.assertEqual([job], [row["id"] for row in self.shown("job", "list", "--status", "running")])
        self.succeed("job", "pause", job)
        self.assertEqual("paused", self.shown("job", "list", "--long")[0]["status"])
        self.succeed("job", "resume", job)
        updated = self.shown("job", "update", job, "--name", "m", "--next", "2040-01-01T00:00")
        self.assertEqual(("m", "2039-12-31T23:00:00Z"), (updated["name"], updated["next_execution_time"]))
        self.succeed("job", "cancel", job)
        self.assertEqual(2, self.cli("job", "update", job, "--name", "x").code)
        self.assertEqual(2, self.cli("job", "update", job).code)
        self.succeed("job", "delete", job)
        self.assertEqual(4, self.cli("job", "delete", job).code)

    def test_a_job_that_runs_once(self) -> None:
        made = self.shown("job", "create", "echo", "--version", "0", "--at", "2040-01-01T00:00:00")
        self.assertEqual(("2040-01-01T00:00:00Z", 1), (made["next_execution_time"], made["count"]))

    def test_what_cannot_be_asked_for_is_a_usage_error(self) -> None:
        for words in (
            ["create", "echo"],
            ["create", "--pattern", "@daily"],
            ["create", "echo", "--alias", "live", "--pattern", "@daily"],
            ["create", "echo", "--pattern", "@sometimes"],
        ):
            result = self.cli("job", *words)
            self.assertEqual(2, result.code, result.err)
        self.assertEqual(4, self.cli("job", "create", "--alias", "no-such", "--pattern", "@daily").code)
        self.assertEqual(4, self.cli("job", "show", str(uuid.uuid4())).code)


class WebhookCommandsTests(CommandsTest):
    def test_a_webhook_through_its_life(self) -> None:
        made = self.shown("webhook", "create", "echo", "--description", "d", "--rate-limit", "60")
        self.assertEqual(
            (self.named["id"], "d", 60, 60, False),
            tuple(made[x] for x in ("function_id", "description", "rate_limit", "rate_burst", "signed")),
        )
        webhook = made["id"]
        self.assertEqual({"x": "1"}, self.got(self.invoke(made, data={"x": "1"})))
        self.assertEqual(made, self.shown("webhook", "show", webhook))
        self.assertEqual([webhook], [row["id"] for row in self.shown("webhook", "list")])
        updated = self.shown("webhook", "update", webhook, "--function", self.function["id"], "--signed")
        self.assertEqual((self.function["id"], True), (updated["function_id"], updated["signed"]))
        self.ok(202, self.invoke(made, headers=test_webhooks.signed(updated["secret"], b"")))
        rotated = self.shown("webhook", "rotate", webhook, "--overlap", "0")
        self.ok(202, self.invoke(made, headers=test_webhooks.signed(rotated["secret"], b"")))
        self.assertFalse(
            self.shown("webhook", "update", webhook, "--unsigned", "--rate-limit", "0")["signed"]
        )
        self.assertEqual(2, self.cli("webhook", "update", webhook).code)
        self.succeed("webhook", "delete", webhook)
        self.assertEqual(4, self.cli("webhook", "delete", webhook).code)

    def test_a_secret_that_the_sender_gave(self) -> None:
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).join("secret"))
        path.write_text(test_webhooks.KEY + "\n")
        made = self.shown("webhook", "create", "echo", "--secret-file", str(path))
        self.assertEqual(test_webhooks.KEY, made["secret"])
        self.assertEqual(2, self.cli("webhook", "rotate", made["id"], "--secret-file", "/nowhere").code)
        path.write_text("whsec_short")
        self.assertEqual(2, self.cli("webhook", "rotate", made["id"], "--secret-file", str(path)).code)

"""Calls of webhooks on a real database, by a clock that the tests set."""

from __future__ import annotations

import base64
import functools
import time
from typing import Any
from unittest import mock

import hypothesis
import testtools
from hypothesis import strategies as st

from funcplat import errors
from funcplat.core import deliveries, queueing, signatures
from funcplat.core.crons import SECOND
from funcplat.core.deliveries import Admitted, Call
from funcplat.core.signatures import Message
from funcplat.core.targets import Reference
from funcplat.core.webhooks import Changes, NewWebhook, Webhook
from funcplat.db import models
from tests.functional import core, test_core_jobs
from tests.functional.test_core_jobs import START

KEY = signatures.PREFIX + base64.b64encode(b"k" * 32).decode()
NOW = START // SECOND


def call(body: bytes = b"{}", **headers: str) -> Call:
    return Call({name.replace("_", "-"): value for name, value in headers.items()}, body, {}, {})


def signed(secret: str = KEY, message_id: str = "m", sent_at: int = NOW, body: bytes = b"{}") -> Call:
    signature = signatures.sign(secret, Message(message_id, sent_at), body)
    return call(body, webhook_id=message_id, webhook_timestamp=str(sent_at), webhook_signature=signature)


class DeliveriesTests(test_core_jobs.SimulatedTime):
    def setUp(self) -> None:
        super().setUp()
        self.target = self.function()

    def webhook(self, **fields: Any) -> Webhook:
        new = NewWebhook(Reference(self.target.id, None, None), **fields)
        return self.core.webhooks.create(core.ALICE, new).webhook

    def admit(self, webhook: Webhook, what: Call, server: core.Core | None = None) -> Admitted:
        return (server or self.core).deliveries.admit(webhook.id, what)

    def queued(self) -> list[Any]:
        return self.rows(models.executions)

    def test_an_open_call_is_the_callers_to_queue(self) -> None:
        webhook = self.webhook()
        admitted = self.admit(webhook, Call({}, b"", {"q": "1"}, {"a": 2}))
        assert admitted.record is not None
        self.assertEqual(
            (admitted.execution_id, "queued", '{"q": "1", "a": 2}', "alices"),
            (
                admitted.record.id,
                admitted.record.status,
                admitted.record.input,
                admitted.record.project_id,
            ),
        )
        self.assertEqual([], self.queued())

    def test_a_signed_call_is_queued_and_counted_when_it_is_let_in(self) -> None:
        admitted = self.admit(self.webhook(secret=KEY), signed())
        self.assertIsNone(admitted.record)
        self.assertEqual([admitted.execution_id], [row.id for row in self.queued()])
        self.assertEqual(1, self.row(models.functions, self.target.id).count)

    def test_the_database_says_what_time_it_is(self) -> None:
        webhook = self.webhook(secret=KEY)
        self.admit(webhook, signed())
        with mock.patch.object(time, "time", lambda: 0.0):
            self.admit(webhook, signed(message_id="n", sent_at=NOW - 299))
        self.assertRaises(errors.TimestampRejected, self.admit, webhook, signed(sent_at=int(time.time())))

    def test_a_message_is_run_once_however_often_and_wherever_it_comes(self) -> None:
        servers = [self.core, self.server(), self.server()]
        webhook = self.webhook(secret=KEY)
        for number in range(4):
            what = signed(message_id=f"m{number}")
            calls = [functools.partial(self.admit, webhook, what, each) for each in servers * 2]
            results = core.at_once(*calls)
            self.assertEqual(1, sum(isinstance(each, Admitted) for each in results), results)
            self.assertEqual(5, sum(isinstance(each, errors.Replayed) for each in results), results)
        self.assertEqual(4, len(self.queued()))

    def test_a_rate_holds_for_all_servers_together(self) -> None:
        servers = [self.core, self.server(), self.server()]
        webhook = self.webhook(rate_limit=60, rate_burst=5)
        calls = [functools.partial(self.admit, webhook, call(), each) for each in servers * 4]
        results = core.at_once(*calls)
        self.assertEqual(5, sum(isinstance(each, Admitted) for each in results), results)
        refused = [each for each in results if isinstance(each, errors.RateLimited)]
        self.assertEqual([1] * 7, [each.retry_after for each in refused])
        self.set_time(START + 2 * SECOND)
        results = core.at_once(*calls)
        self.assertEqual(2, sum(isinstance(each, Admitted) for each in results), results)
        self.assertEqual(7, len(self.queued()))

    def test_a_crash_between_leaves_neither_the_id_nor_the_execution(self) -> None:
        webhook = self.webhook(secret=KEY, rate_limit=1)
        with mock.patch.object(queueing.Acceptance, "enqueue", mock.Mock(side_effect=KeyboardInterrupt)):
            self.assertRaises(KeyboardInterrupt, self.admit, webhook, signed())
        self.admit(webhook, signed())
        self.assertEqual(1, len(self.queued()))

    def test_a_secret_that_was_rotated_out_is_accepted_for_a_while(self) -> None:
        webhook = self.webhook(secret=KEY)
        rotated = self.core.webhooks.rotate(core.ALICE, webhook.id, None, 60.0)
        assert rotated.secret is not None
        for number, secret in enumerate((KEY, rotated.secret)):
            self.admit(webhook, signed(secret, f"m{number}"))
        self.set_time(START + 60 * SECOND)
        self.assertRaises(errors.SignatureInvalid, self.admit, webhook, signed(KEY, "m2"))
        self.admit(webhook, signed(rotated.secret, "m3"))

    def test_ids_are_forgotten_when_their_time_is_over(self) -> None:
        self.admit(self.webhook(secret=KEY), signed())
        self.core.deliveries.forget()
        self.assertEqual(1, len(self.rows(models.webhook_deliveries)))
        self.set_time(START + 86_401 * SECOND)
        self.core.deliveries.forget()
        self.assertEqual([], self.rows(models.webhook_deliveries))

    def test_a_webhook_goes_with_what_is_remembered_of_it(self) -> None:
        webhook = self.webhook(secret=KEY)
        self.admit(webhook, signed())
        self.core.webhooks.delete(core.ALICE, webhook.id)
        self.assertEqual([], self.rows(models.webhook_deliveries))
        self.assertRaises(errors.NotFound, self.admit, webhook, signed())

    def test_a_webhook_and_the_end_of_its_function_do_not_meet(self) -> None:
        other = self.server()
        for _ in range(8):
            target = self.function()
            new = NewWebhook(Reference(target.id, None, None))
            made, deleted = core.at_once(
                functools.partial(self.core.webhooks.create, core.ALICE, new),
                functools.partial(other.functions.delete, core.ALICE, target.id),
            )
            refused = isinstance(made, errors.NotFound) and deleted is None
            self.assertTrue(refused or isinstance(deleted, errors.InUse), (made, deleted))

    def test_changes_at_the_same_moment_come_one_after_the_other(self) -> None:
        other, webhook = self.server(), self.webhook()
        nothing = Reference(None, None, None)
        changes = [
            functools.partial(server.webhooks.update, core.ALICE, webhook.id, Changes(nothing, signed=True))
            for server in (self.core, other)
        ]
        secrets = [written.secret for written in core.at_once(*changes)]
        self.assertEqual(1, len([secret for secret in secrets if secret is not None]), secrets)

    def test_secrets_stand_in_no_representation(self) -> None:
        written = self.core.webhooks.create(
            core.ALICE, NewWebhook(Reference(self.target.id, None, None), secret=KEY)
        )
        self.assertNotIn(KEY, repr(written.webhook))
        self.assertNotIn(KEY, repr(written))


class SignatureTests(testtools.TestCase):
    def test_it_is_the_one_of_the_standards_own_example(self) -> None:
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        message = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330)
        expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        self.assertEqual(expected, signatures.sign(secret, message, b'{"test": 2432232314}'))

    def test_secrets_that_are_none(self) -> None:
        for text in ("", "whsec_", "whsec_ü", "whsec_%%%", signatures.PREFIX + "A" * 28, "A" * 92):
            self.assertRaises(errors.InvalidRequest, signatures.check_secret, text)
        for text in (signatures.new_secret(), KEY, KEY.removeprefix(signatures.PREFIX)):
            signatures.check_secret(text)
        self.assertNotEqual(signatures.new_secret(), signatures.new_secret())


class BucketTests(testtools.TestCase):
    @hypothesis.given(
        st.integers(1, 6000), st.integers(1, 50), st.lists(st.integers(0, 20_000_000), max_size=200)
    )
    @hypothesis.settings(derandomize=True, database=None, deadline=None)
    def test_no_span_of_time_has_more_than_the_burst_and_what_the_rate_gives(
        self, limit: int, burst: int, pauses: list[int]
    ) -> None:
        now, paid_until, admitted = START, None, []
        for pause in pauses:
            now += pause
            try:
                paid_until = deliveries.charged(limit, burst, paid_until, now)
            except errors.RateLimited as error:
                self.assertGreater(error.retry_after, 0)
                deliveries.charged(limit, burst, paid_until, now + error.retry_after * SECOND)
            else:
                admitted.append(now)
        for first, begin in enumerate(admitted):
            for last in range(first, len(admitted)):
                allowed = burst + limit * (admitted[last] - begin) / (60 * SECOND)
                self.assertLessEqual(last - first + 1, allowed + 0.01)

    def test_a_bucket_that_was_left_alone_is_full(self) -> None:
        paid_until = None
        for _ in range(10):
            paid_until = deliveries.charged(60, 10, paid_until, START)
        self.assertRaises(errors.RateLimited, deliveries.charged, 60, 10, paid_until, START)
        for _ in range(10):
            paid_until = deliveries.charged(60, 10, paid_until, START + 3600 * SECOND)

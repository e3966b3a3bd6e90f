"""What was accepted under kill -9 is settled, once; ``benchmarks/run --only kills`` is the long run of it."""

from __future__ import annotations

import testtools

from tests import services
from tests.integration import killing


class KillsTest(testtools.TestCase):
    def assert_nothing_happened(self, audit: killing.Audit, plan: killing.Plan) -> None:
        self.assertGreaterEqual(audit.accepted, plan.executions)
        self.assertEqual(plan.kills, audit.kills)
        self.assertEqual(([], [], []), (audit.lost, audit.stuck, audit.wrong), audit)
        self.assertEqual(0, audit.settled_twice, audit)
        self.assertTrue(audit.conserved, audit)
        self.assertEqual(0, audit.unconserved, audit)
        self.assertGreater(audit.samples, 5)
        self.assertEqual({"success"}, set(audit.outcomes), audit)

    def test_of_one_server_on_sqlite(self) -> None:
        plan = killing.Plan(executions=200, kills=3)
        self.assert_nothing_happened(killing.run(None, plan), plan)

    def test_of_apis_and_engines_on_postgresql(self) -> None:
        plan = killing.Plan(executions=200, kills=5, apis=2, engines=3)
        url = self.useFixture(services.database("postgresql")).url
        self.assert_nothing_happened(killing.run(url, plan), plan)

    def test_of_apis_and_engines_on_mariadb(self) -> None:
        plan = killing.Plan(executions=100, kills=2, engines=2)
        url = self.useFixture(services.database("mariadb")).url
        self.assert_nothing_happened(killing.run(url, plan), plan)

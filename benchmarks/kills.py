"""Ten thousand accepted executions under twenty kill -9, and what was lost, stuck or settled twice."""

from __future__ import annotations

import contextlib
import dataclasses

from benchmarks import claims, report
from tests.integration import killing

PLANS = {
    "sqlite": killing.Plan(executions=10_000, kills=20, pause=(1.0, 4.0)),
    "postgresql": killing.Plan(executions=10_000, kills=20, apis=2, engines=3, pause=(1.0, 4.0)),
    "mariadb": killing.Plan(executions=10_000, kills=20, apis=2, engines=3, pause=(1.0, 4.0)),
}


def measure(databases: tuple[str, ...]) -> report.Section:
    audits = {name: _run(name) for name in databases}
    return report.Section(
        "kills",
        "Asynchronous executions under kill -9 of random processes",
        ("database", "accepted", "kills", "lost", "stuck", "settled twice", "run again", "s"),
        [_row(name, audit) for name, audit in audits.items()],
        notes=(
            "sqlite: one serve; others: 2 api and 3 engine processes, each started again at once",
            "run again: executions that took more than one attempt",
        ),
        targets=[
            report.Target(f"{name}: lost, stuck or settled twice", _harm(audit), 0.0, "executions")
            for name, audit in audits.items()
        ],
        samples={name: dataclasses.asdict(audit) for name, audit in audits.items()},
    )


def _run(name: str) -> killing.Audit:
    with contextlib.ExitStack() as stack:
        url = None if name == "sqlite" else stack.enter_context(claims.url(name))
        return killing.run(url, PLANS[name])


def _harm(audit: killing.Audit) -> float:
    return float(len(audit.lost) + len(audit.stuck) + len(audit.wrong) + abs(audit.settled_twice))


def _row(name: str, audit: killing.Audit) -> tuple[str, ...]:
    again = sum(number for attempts, number in audit.attempts.items() if attempts > 1)
    numbers = (audit.accepted, audit.kills, len(audit.lost), len(audit.stuck), audit.settled_twice, again)
    return (name, *(str(number) for number in numbers), f"{audit.seconds:.0f}")

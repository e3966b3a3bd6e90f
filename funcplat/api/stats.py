"""How much there is to do: for administrators as JSON, for Prometheus as text."""

from __future__ import annotations

import asyncio
import dataclasses

import falcon
import falcon.asgi

from funcplat.api import counts
from funcplat.api.middleware import Request, identity
from funcplat.api.operation import Operation
from funcplat.api.resource import Desk, Resource, respond
from funcplat.core.tallies import Census

OPERATIONS = (
    Operation("get", "/v1/stats", "Count the executions of all projects (admin)", 200, counts.StatsView),
)
FRESH = 1.0
"""Seconds for which /metrics, which anybody may ask for, does not ask the database again."""
OUTCOMES = ("success", "failed", "error", "deleted")
STAGES = ("queued", "delayed", "running")


class Stats(Resource):
    """/v1/stats"""

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Counts asynchronous executions: accepted = queued + delayed + running + settled."""
        self.policy.check("stats:get", identity(req))
        respond(resp, view(await self.run(self.services.tallies.read)))


class Metrics(Resource):
    """/metrics"""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._text = ""
        self._read_at = -FRESH
        self._turn = asyncio.Lock()

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """The same counts, in the text format of Prometheus."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if loop.time() - self._read_at > FRESH or not self._text:
                self._text = exposition(await self.run(self.services.tallies.read))
                self._read_at = loop.time()
        resp.content_type = "text/plain; version=0.0.4; charset=utf-8"
        resp.text = self._text


def view(census: Census) -> counts.StatsView:
    """What /v1/stats says."""
    settled = counts.SettledView(census.success, census.failed, census.error, census.deleted)
    return counts.StatsView(
        counts.CensusView(
            accepted=census.accepted,
            queued=census.queued,
            delayed=census.delayed,
            running=census.running,
            settled=settled,
            dead_letters=census.dead,
            conserved=census.holds,
        )
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, int], ...]  # labels as text, value

    def lines(self) -> list[str]:
        head = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}"]
        return head + [f"{self.name}{labels} {value}" for labels, value in self.samples]


def exposition(census: Census) -> str:
    """The counts in the text format of Prometheus, version 0.0.4."""
    settled = tuple((f'{{outcome="{name}"}}', getattr(census, name)) for name in OUTCOMES)
    stages = tuple((f'{{stage="{name}"}}', getattr(census, name)) for name in STAGES)
    metrics = (
        _Metric(
            "funcplat_executions_accepted_total",
            "counter",
            "Asynchronous executions that were accepted, those that were queued again included.",
            (("", census.accepted),),
        ),
        _Metric(
            "funcplat_executions_settled_total",
            "counter",
            "Asynchronous executions that ended, or were deleted before that.",
            settled,
        ),
        _Metric("funcplat_executions", "gauge", "Asynchronous executions that have not ended.", stages),
        _Metric("funcplat_dead_letters", "gauge", "Executions that were given up.", (("", census.dead),)),
        _Metric(
            "funcplat_executions_conserved",
            "gauge",
            "1 where accepted = settled + those that have not ended; 0: some were lost.",
            (("", int(census.holds)),),
        ),
    )
    return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"

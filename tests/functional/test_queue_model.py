"""The life of the queue against a model of it: whatever callers, engines and deaths do in whatever order.

`QueueMachine` makes servers, claims, ends attempts, kills servers, cancels, deletes and redrives on a real
database, and keeps beside it what must have become of each execution.  After each step the rows and the
tallies must be what the model says.

That it can fail is shown by `PlantedBugTests`, which plant two bugs that such systems have had:

* an attempt's end is written without looking whose the attempt is (the server and the number are left out),
  so that a server that was taken for dead overwrites, and settles again, what another one runs;
* a cancellation is forgotten when the attempt fails by itself, so that what was cancelled begins again.

The machine must find both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import random
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import hypothesis
import sqlalchemy as sa
from hypothesis import stateful
from hypothesis import strategies as st

from funcplat import errors
from funcplat.core import recording as recordings
from funcplat.core.executions import Record, new_id
from funcplat.core.interventions import Interventions
from funcplat.core.queue import Queue, QueueOptions
from funcplat.core.recording import Recording
from funcplat.core.retries import Retry, RetryOptions
from funcplat.core.servers import Servers
from funcplat.core.tallies import Tallies
from funcplat.db import models, session
from funcplat.errors import ReasonCode
from tests.functional import core

T = models.executions
MAX_ATTEMPTS = 2
SETTINGS = hypothesis.settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    report_multiple_bugs=False,
)
ENDS = st.sampled_from(
    [
        ("success", None),
        ("failed", ReasonCode.FUNCTION_RAISED),
        ("failed", ReasonCode.WORKER_DIED),
        ("error", ReasonCode.QUEUE_TIMEOUT),
        ("error", ReasonCode.PLATFORM_ERROR),
    ]
)


@dataclasses.dataclass
class Expected:
    """What must have become of an execution."""

    status: str = "queued"
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    retry: int = 1
    cancelled: bool = False  # asked for while it ran
    dead: bool = False
    owner: str | None = None

    def judge(self, status: str, reason: str | None) -> None:
        """An attempt ended so: the rules of the documents, written down once more."""
        self.owner = None
        again = False
        if reason == ReasonCode.QUEUE_TIMEOUT:
            again = True
        elif reason in (ReasonCode.WORKER_DIED, ReasonCode.SERVER_LOST):
            self.losses += 1
            again = self.losses < MAX_ATTEMPTS
            self.dead = not again
        elif reason == ReasonCode.FUNCTION_RAISED:
            self.failures += 1
            again = self.failures < self.retry
            self.dead = not again and self.retry > 1
        elif status == "error":
            self.dead = True
        self.status = "delayed" if again else status
        if not again:
            self.cancelled = False


class Server:
    """One server process: its queue, and the attempts that it believes to run."""

    def __init__(self, db: session.Database) -> None:
        self.id = str(uuid.uuid4())
        self.servers = Servers(db, self.id, "here", 3600.0)
        tallies = Tallies(db, self.id)
        self.queue = Queue(db, self.id, tallies, QueueOptions(RetryOptions(MAX_ATTEMPTS, 0.0, 0.0)))
        self.interventions = Interventions(db, self.queue, tallies, 0.0)
        self.tallies = tallies
        self.attempts: list[Record] = []
        self.alive = True
        self.servers.register()


class QueueMachine(stateful.RuleBasedStateMachine):
    """Does anything in any order."""

    db: ClassVar[session.Database]

    def __init__(self) -> None:
        super().__init__()
        with self.db.write(durable=False) as connection:
            for table in reversed(models.metadata.sorted_tables):
                connection.execute(sa.delete(table))
            shards = [{"shard": n, **dict.fromkeys(core.NAMES, 0)} for n in range(models.SHARDS)]
            connection.execute(sa.insert(models.tallies), shards)
        self.recording = Recording(self.db)
        self.servers = [Server(self.db)]
        self.model: dict[str, Expected] = {}
        self.functions = [str(uuid.uuid4()) for _ in range(3)]
        self.accepted = self.deleted = 0
        self.choose = random.Random(0)

    def teardown(self) -> None:
        self.recording.close()

    @property
    def living(self) -> list[Server]:
        return [server for server in self.servers if server.alive]

    def some(self, *statuses: str) -> list[str]:
        return [name for name, each in self.model.items() if each.status in statuses]

    # -- callers -----------------------------------------------------------------------------------------

    @stateful.rule(function=st.integers(0, 2), retry=st.integers(1, 2), number=st.integers(1, 3))
    def accept(self, function: int, retry: int, number: int) -> None:
        text = Retry(retry, 0.0).text() if retry > 1 else None
        batch = [_record(self.functions[function], text) for _ in range(number)]
        self.recording.write(batch, durable=True)
        self.model |= {record.id: Expected(retry=retry) for record in batch}
        self.accepted += number

    @stateful.rule(pick=st.integers(0, 999), running=st.booleans())
    def cancel(self, pick: int, running: bool) -> None:
        names = self.some("running") if running else list(self.model)
        if not names:
            return
        name = names[pick % len(names)]
        expected = self.model[name]
        try:
            self.servers[0].interventions.cancel(core.ALICE, name)
        except errors.Conflict:
            assert expected.status in ("success", "failed", "error"), expected
            return
        assert expected.status in models.UNFINISHED, expected
        if expected.status == "running":
            expected.cancelled = True
        else:
            expected.status, expected.owner, expected.cancelled = "failed", None, False

    @stateful.rule(pick=st.integers(0, 999))
    def delete(self, pick: int) -> None:
        if self.model:
            name = list(self.model)[pick % len(self.model)]
            self.servers[0].interventions.delete(core.ALICE, name)
            self.deleted += self.model.pop(name).status in models.UNFINISHED

    @stateful.rule(pick=st.integers(0, 999))
    def redrive(self, pick: int) -> None:
        if not self.model:
            return
        name = list(self.model)[pick % len(self.model)]
        expected = self.model[name]
        with contextlib.suppress(errors.Conflict):
            self.servers[0].interventions.redrive_one(core.ALICE, name)
            assert expected.dead, expected
            self.model[name] = Expected(attempt=expected.attempt, retry=expected.retry)
            self.accepted += 1
            return
        assert not expected.dead, expected

    # -- engines -----------------------------------------------------------------------------------------

    @stateful.precondition(lambda self: len(self.servers) < 4)
    @stateful.rule()
    def start(self) -> None:
        self.servers.append(Server(self.db))

    @stateful.rule(pick=st.integers(0, 9), room=st.integers(1, 4))
    def claim(self, pick: int, room: int) -> None:
        server = self.living[pick % len(self.living)] if self.living else None
        if server is None:
            return
        for record in server.queue.claim(room):
            expected = self.model[record.id]
            assert expected.status == "queued", expected
            expected.status, expected.owner = "running", server.id
            expected.attempt += 1
            assert record.attempt == expected.attempt
            server.attempts.append(record)

    @stateful.rule(pick=st.integers(0, 9), end=ENDS)
    def end(self, pick: int, end: tuple[str, str | None]) -> None:
        """An attempt ends, perhaps of a server that others take for dead."""
        server = self.servers[pick % len(self.servers)]
        if not server.attempts:
            return
        record = server.attempts.pop(0)
        record.status, record.reason_code = end
        record.result, record.updated_at = json.dumps({"output": record.attempt}), session.micros()
        server.queue.judge(record)
        self.recording.write([record], durable=True)
        expected = self.model.get(record.id)
        mine = expected is not None and (expected.status, expected.owner, expected.attempt) == (
            "running",
            server.id,
            record.attempt,
        )
        if expected is not None and mine:
            expected.judge(*end)

    @stateful.rule()
    def promote(self) -> None:
        self.servers[0].queue.promote()
        for name in self.some("delayed"):
            if not self.model[name].cancelled:
                self.model[name].status = "queued"

    @stateful.rule(pick=st.integers(0, 9))
    def look_for_cancellations(self, pick: int) -> None:
        server = self.servers[pick % len(self.servers)]
        told = set(server.queue.cancellations())
        for expected in self.model.values():
            if expected.cancelled and expected.status in ("queued", "delayed"):
                expected.status, expected.cancelled = "failed", False
        running = {n for n, e in self.model.items() if e.cancelled and e.owner == server.id}
        assert told == running, (told, running)

    # -- deaths ------------------------------------------------------------------------------------------

    @stateful.rule(pick=st.integers(0, 9))
    def die(self, pick: int) -> None:
        """Or be taken for dead: its attempts may still end."""
        if len(self.living) > 1:
            server = self.living[1:][pick % (len(self.living) - 1)]
            server.servers.leave()
            server.alive = False

    @stateful.rule()
    def settle_lost(self) -> None:
        self.servers[0].queue.settle_lost()
        dead = {server.id for server in self.servers if not server.alive}
        for expected in self.model.values():
            if expected.status == "running" and expected.owner in dead:
                expected.judge("error", ReasonCode.SERVER_LOST)

    @stateful.rule(room=st.integers(1, 4), cancel=st.integers(-1, 4), stale=st.none() | ENDS)
    def take_over(self, room: int, cancel: int, stale: tuple[str, str | None] | None) -> None:
        """What chance seldom does in a row: a server dies at work, and another one goes on with it."""
        self.start()
        self.claim(len(self.living) - 1, room)
        if cancel >= 0:
            self.cancel(cancel, True)
        self.die(len(self.living) - 2)
        self.settle_lost()
        self.promote()
        self.claim(0, room)
        if stale is not None:
            self.end(len(self.servers) - 1, stale)

    # -- what must hold ----------------------------------------------------------------------------------

    @stateful.invariant()
    def rows_are_as_expected(self) -> None:
        with self.db.read() as connection:
            rows = {row.id: row for row in connection.execute(sa.select(T))}
            letters = set(connection.execute(sa.select(models.dead_letters.c.execution_id)).scalars())
        found = {name: (row.status, row.attempt) for name, row in rows.items()}
        assert found == {name: (each.status, each.attempt) for name, each in self.model.items()}, found
        assert letters == {name for name, each in self.model.items() if each.dead}

    @stateful.invariant()
    def nothing_is_lost_or_settled_twice(self) -> None:
        census = self.servers[0].tallies.read()
        assert census.holds, census
        assert (census.accepted, census.deleted) == (self.accepted, self.deleted), census


def _record(function_id: str, retry: str | None) -> Record:
    return Record(
        id=new_id(), function_id=function_id, function_version=0, function_alias=None, description=None,
        status="queued", sync=False, input=None, result=None, reason_code=None, reason_message=None,
        project_id=core.ALICE.project_id, worker_id=None, attempt=0, server_id=None,
        created_at=session.micros(), updated_at=None, retry=retry,
    )  # fmt: skip


class QueueModelTests(core.DatabaseTest):
    def test_rows_are_what_the_model_says_whatever_happens(self) -> None:
        self.run_machine(QueueMachine)

    def run_machine(self, machine: type[QueueMachine], settings: hypothesis.settings = SETTINGS) -> None:
        logging.getLogger("funcplat").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("funcplat").setLevel, logging.NOTSET)
        bound = type(machine.__name__, (machine,), {"db": self.db})
        stateful.run_state_machine_as_test(bound, settings=settings)


class ForgetfulOfOwners(QueueMachine):
    """The first planted bug: ends are written whoever's the attempt is."""

    def __init__(self) -> None:
        super().__init__()
        with _replaced(recordings, "_mine", lambda: T.c.id == sa.bindparam("b_id")):
            self.recording = Recording(self.db)


class ForgetfulOfCancellations(QueueMachine):
    """The second one: what is queued again does not pass by the requests to cancel it."""

    @stateful.rule()
    def promote(self) -> None:
        with self.db.write() as connection:
            connection.execute(sa.update(T).where(T.c.status == "delayed").values(status="queued"))
        for name in self.some("delayed"):
            if not self.model[name].cancelled:
                self.model[name].status = "queued"


class PlantedBugTests(QueueModelTests):
    def test_rows_are_what_the_model_says_whatever_happens(self) -> None:
        """It finds what was planted."""
        settings = hypothesis.settings(SETTINGS, max_examples=200, phases=[hypothesis.Phase.generate])
        for planted in (ForgetfulOfOwners, ForgetfulOfCancellations):
            self.assertRaises(AssertionError, self.run_machine, planted, settings)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)

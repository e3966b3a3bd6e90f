"""Calls that a handler takes from its client itself, and how the supervisor still answers for them."""

from __future__ import annotations

import functools
import os
import random
import signal
import time

from testtools import matchers

from funcplat.testing.workerclient import Execution, WorkerClient
from tests.integration import worker_harness

ECHO = """
import os, sys, time

def main(say="", sleep=0.0, exit=None, fail="", pid=False, fork=0, lines=0, size=0):
    if say:
        print(say, flush=True)
    if lines:
        sys.stdout.write("x" * lines)
    for _ in range(fork):
        if os.fork() == 0:
            time.sleep(60)
    time.sleep(sleep)
    if exit is not None:
        os._exit(exit)
    if fail:
        raise ValueError(fail)
    return "y" * size if size else os.getpid() if pid else say
"""


class DirectTestCase(worker_harness.PythonWorker):
    def lent(self, **fields: object) -> WorkerClient:
        """A client whose connection a handler has."""
        client = self.run_module(ECHO, **fields)
        client.invoke()
        self.assertTrue(client.known)
        self.wait_until_lent(client)
        return client

    def wait_until_lent(self, client: WorkerClient) -> None:
        # The first call waited for an import, which may have made it a long one.
        def lent() -> bool:
            client.invoke()
            return self.is_lent(client)

        self.wait_for(lent, "a handler that has the connection")

    def is_lent(self, client: WorkerClient) -> bool:
        """Whether a call is answered while the supervisor stands still."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            client.send_invoke()
            client.socket.settimeout(0.15)
            client.receive_execution()
        except TimeoutError:
            lent = False
        else:
            lent = True
        finally:
            client.socket.settimeout(self.patience)
            os.kill(self.process.pid, signal.SIGCONT)
        if not lent:
            client.receive_execution()
        return lent


class DirectTest(DirectTestCase):
    def test_calls_are_answered_without_the_supervisor(self) -> None:
        client = self.lent()
        client.invoke()  # through the supervisor, where it is time for that, so that the next are not
        os.kill(self.process.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.process.pid, signal.SIGCONT)
        answers = [client.invoke({"say": str(number)}) for number in range(3)]
        self.assertEqual(["0", "1", "2"], [each.output for each in answers])
        self.assertEqual([b"0\n", b"1\n", b"2\n"], [each.log for each in answers])
        self.assertEqual(
            {("success", None, 0)}, {(each.status, each.reason, each.dropped) for each in answers}
        )

    def test_a_worker_with_more_clients_than_handlers_lends_to_none(self) -> None:
        client = self.lent(concurrency=1)
        other = self.connect()
        self.assertEqual("success", other.invoke().status)  # which had the connection recalled
        for _ in range(3):
            self.assertFalse(self.is_lent(client))
            self.assertEqual("success", other.invoke().status)

    def test_a_handler_that_is_busy_for_its_client_counts_for_concurrency(self) -> None:
        client = self.lent(concurrency=1)
        client.send_invoke({"sleep": 0.4})
        time.sleep(0.1)  # past the point at which the supervisor has taken it over
        other = self.connect()
        other.send_invoke()
        self.assertEqual(429, other.receive().status)
        self.assertEqual("success", client.receive_execution().status)

    def test_from_time_to_time_a_call_goes_through_the_supervisor(self) -> None:
        client = self.lent()
        time.sleep(0.3)
        self.assertFalse(self.is_lent(client))
        self.wait_until_lent(client)

    def test_output_between_calls_belongs_to_none(self) -> None:
        client = self.run_module(
            """
            import os, threading, time
            def late():
                time.sleep(0.05)
                os.write(1, b"late")
            def main():
                threading.Thread(target=late).start()
            """
        )
        client.invoke()
        client.invoke()
        time.sleep(0.15)
        self.assertEqual(b"", client.invoke().log)

    def test_a_large_result_and_a_large_input_arrive_whole(self) -> None:
        client = self.lent()
        self.assertEqual(900_000, len(client.invoke({"size": 900_000}).output))
        self.assertEqual(300_000, len(client.invoke({"say": "z" * 300_000}).output))

    def test_what_is_no_call_is_answered_by_the_supervisor(self) -> None:
        client = self.lent()
        self.assertEqual("loaded", client.ready()["state"])
        self.assertEqual("success", client.invoke().status)

    def test_a_drained_worker_takes_no_call_of_a_client_of_its_own(self) -> None:
        client = self.lent()
        other = self.connect()
        self.assertEqual(0, other.ready()["busy"])
        self.assertEqual(200, other.drain().status)
        # The handler may take a call until it has given the connection back: who stops idle workers waits.
        self.wait_for(lambda: other.ready()["busy"] == 0, "a connection given back")

        def refused() -> bool:
            client.send_invoke()
            return client.receive().status == 503

        self.wait_for(refused, "a refusal")

    def test_a_result_that_its_client_does_not_read_keeps_no_handler(self) -> None:
        client = self.lent(concurrency=1)
        for _ in range(3):
            for _ in range(3):  # so that none of the next has to go through the supervisor
                pid = client.invoke({"pid": True}).output
            client.send_invoke({"size": 900_000})
            time.sleep(0.2)  # until it is called, which nobody tells
            with self.connect() as other:
                self.wait_for(lambda pid=pid, other=other: self.serves(other, pid), "the handler")
            self.assertEqual(900_000, len(client.receive_execution().output))

    def serves(self, client: WorkerClient, pid: int) -> bool:
        client.send_invoke({"pid": True})
        answer = client.receive()
        return answer.status == 200 and answer.body == str(pid).encode()

    def test_a_client_that_hangs_up_frees_the_handler(self) -> None:
        client = self.lent(concurrency=1)
        pid = client.invoke({"pid": True}).output
        client.close()
        self.assertEqual(pid, self.connect().invoke({"pid": True}).output)


class TakenOverTest(DirectTestCase):
    """What is not the success of a short call is the supervisor's."""

    def test_a_long_call_has_its_output_and_result(self) -> None:
        client = self.lent()
        client.send_invoke({"say": "early", "sleep": 0.3}, execution="long")
        time.sleep(0.15)
        log = self.connect().log("execution=long")
        self.assertEqual((200, b"early\n"), (log.status, log.body))
        execution = client.receive_execution()
        self.assertEqual(
            ("success", "early", b"early\n"), (execution.status, execution.output, execution.log)
        )
        self.assertThat(execution.duration, matchers.GreaterThan(0.29))

    def test_more_output_than_a_pipe_holds_does_not_block(self) -> None:
        execution = self.lent().invoke({"lines": 500_000})
        self.assertEqual((500_000, None), (len(execution.log), execution.reason))

    def test_more_output_than_may_be_kept_is_remarked(self) -> None:
        execution = self.lent(max_log=100).invoke({"lines": 300})
        self.assertEqual((b"x" * 100, 200), (execution.log, execution.dropped))
        self.assertEqual(("success", "log_truncated"), (execution.status, execution.reason))

    def test_an_exception_has_its_reason_and_trace(self) -> None:
        client = self.lent()
        execution = client.invoke({"fail": "no such luck"})
        self.assertEqual(("failed", "function_raised"), (execution.status, execution.reason))
        self.assertIn(b"ValueError: no such luck", execution.log)
        self.assertEqual("success", client.invoke().status)

    def test_a_timeout_ends_the_call_and_the_handler(self) -> None:
        client = self.lent()
        pid = client.invoke({"pid": True}).output
        execution = client.invoke({"say": "started", "sleep": 60}, timeout=0.2)
        self.assertEqual(
            ("failed", "timeout", b"started\n"), (execution.status, execution.reason, execution.log)
        )
        self.assertThat(
            execution.duration, matchers.MatchesAll(matchers.GreaterThan(0.19), matchers.LessThan(2))
        )
        self.assertNotEqual(pid, client.invoke({"pid": True}).output)

    def test_a_timeout_shorter_than_a_short_call_is_kept(self) -> None:
        execution = self.lent().invoke({"sleep": 5}, timeout=0.001)
        self.assertEqual("timeout", execution.reason)

    def test_an_exit_is_told_with_what_was_written_before(self) -> None:
        client = self.lent()
        for sleep in (0, 0.1):
            self.wait_until_lent(client)
            execution = client.invoke({"say": "last words", "exit": 3, "sleep": sleep})
            self.assertEqual(("failed", "function_exited"), (execution.status, execution.reason))
            self.assertIn("3", execution.message)
            self.assertEqual(b"last words\n", execution.log)

    def test_a_handler_that_dies_between_calls_takes_no_connection_with_it(self) -> None:
        client = self.lent()
        for pid in self.handlers():
            self.wait_for(lambda pid=pid: worker_harness.state(pid) == "S", "a handler that waits for calls")
            os.kill(pid, signal.SIGKILL)
        self.assertEqual("success", client.invoke({"sleep": 0.05}).status)

    def test_processes_left_behind_are_killed_and_remarked(self) -> None:
        client = self.lent()
        execution = client.invoke({"fork": 2})
        self.assertEqual(("success", "processes_killed"), (execution.status, execution.reason))
        self.wait_for(lambda: not self.handlers() or len(self.handlers()) == 1, "the end of what was left")
        self.assertEqual("success", client.invoke().status)

    def test_a_memory_kill_is_told_as_such(self) -> None:
        client = self.lent()
        self.count("oom_kills", 1)
        client.send_invoke({"sleep": 30})
        time.sleep(0.05)
        for pid in self.handlers():
            os.kill(pid, signal.SIGKILL)
        self.assertEqual("memory_exceeded", client.receive_execution().reason)


class MixtureTest(DirectTestCase):
    """Any order of calls: each is answered, and with what is its own."""

    CALLS = 250
    CLIENTS = 3

    def test_each_of_many_different_calls_has_its_own_answer(self) -> None:
        self.run_module(ECHO)
        clients = [self.in_background(functools.partial(self.calls, seed)) for seed in range(self.CLIENTS)]
        self.assertEqual([[]] * self.CLIENTS, [wrong() for wrong in clients])
        self.assertLessEqual(len(self.handlers()), self.CLIENTS)

    def calls(self, seed: int) -> list[object]:
        """What was wrong."""
        chance, client, wrong = random.Random(seed), self.connect(), []
        for number in range(self.CALLS):
            text = f"{seed}-{number}"
            kind = chance.choices(("short", "long", "raise", "exit", "fork", "lines"), (20, 4, 2, 1, 1, 2))[0]
            arguments: dict[str, object] = {"say": text}
            arguments |= {
                "short": {},
                "long": {"sleep": chance.choice((0.001, 0.004, 0.005, 0.006, 0.02))},
                "raise": {"fail": text},
                "exit": {"exit": 3},
                "fork": {"fork": 1},
                "lines": {"lines": 70_000},
            }[kind]
            if chance.random() < 0.3:
                client.known = False  # the secret is sent, which a handler leaves to its supervisor
            answer = client.invoke(arguments)
            log = {"raise": answer.log, "lines": f"{text}\n".encode() + b"x" * 70_000}
            expected = "failed" if kind in ("raise", "exit") else "success"
            if (answer.status, answer.log) != (expected, log.get(kind, f"{text}\n".encode())):
                wrong.append((number, kind, answer))
            if not answer.log.startswith(text.encode()) or (expected == "success" and answer.output != text):
                wrong.append((number, kind, answer))
        return wrong


class LiesTest(worker_harness.PythonWorker):
    """User code that meddles with what its handler shares with the supervisor."""

    PRELUDE = """
        import ctypes, gc, os, time
        def guest():
            for each in gc.get_objects():
                if type(each).__name__ == "Guest":
                    return each
        def surface():
            return guest()._surface
        calls = 0
        def main(do=None):
            global calls
            calls += 1
            if do and guest() is not None:
                exec(do, globals())
            return calls
    """

    def meddle(self, what: str, timeout: float = 1.0) -> tuple[WorkerClient, Execution]:
        client = self.run_module(self.PRELUDE)
        for _ in range(3):
            client.invoke()
        return client, client.invoke({"do": what}, timeout=timeout)

    def test_a_board_without_a_call_costs_the_call(self) -> None:
        client, execution = self.meddle("surface().board.phase = 0; time.sleep(30)")
        self.assertEqual(("failed", "function_crashed"), (execution.status, execution.reason))
        self.assertEqual("success", client.invoke().status)

    def test_a_board_full_of_nonsense_costs_the_call(self) -> None:
        client, execution = self.meddle(
            "surface().board._page[0:90] = b'\\x01' + b'\\xff' * 89; time.sleep(30)"
        )
        self.assertEqual("failed", execution.status)
        self.assertEqual("success", client.invoke().status)

    def test_a_request_that_died_with_its_handler_is_not_waited_for(self) -> None:
        client = self.run_module(self.PRELUDE)
        for _ in range(3):
            client.invoke()
        # As if it had just been read: the phase stays, and the handler ends before the function runs.
        client.send_invoke({"do": "surface().board.phase = 2; os._exit(0)"})
        self.assertRaises(EOFError, client.receive)
        self.assertEqual("success", self.connect().invoke().status)

    def test_a_closed_timer_costs_the_handler(self) -> None:
        client, _execution = self.meddle("os.close(surface().timer)")
        self.assertEqual("success", client.invoke().status)

    def test_closed_descriptors_cost_the_handler(self) -> None:
        client, execution = self.meddle("os.closerange(3, 2000); time.sleep(0.1)")
        self.assertEqual("failed", execution.status)
        self.assertEqual("success", client.invoke().status)

    def test_a_connection_given_back_twice_is_no_connection_lent(self) -> None:
        frame = "struct.pack('!IQBBBdI', 23, 2**63, 3, 0, 0, 0.0, 0)"
        forged = f"import struct; os.write(guest()._channel, {frame} * 2); time.sleep(0.2)"
        _client, execution = self.meddle(forged)
        self.assertEqual("failed", execution.status)
        self.assertEqual("success", self.connect().invoke().status)

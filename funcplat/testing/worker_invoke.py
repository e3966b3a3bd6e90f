"""``/invoke``, as tests: calls, who may make them, and their results."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

from funcplat.testing.worker_case import WorkerCase
from funcplat.testing.worker_http import MAX_INPUT
from funcplat.testing.workerclient import SECRET

ODD_TEXT = "h\u00e9 \u2028 \U0001f600 \ud800 \x00 \x7f % \r\nx-status: success\r\n\r\n"
"""Characters that break a careless program."""


class CallTests(WorkerCase):
    """What a call is given, and what it gives."""

    def test_a_call_has_its_result_log_and_duration(self) -> None:
        client = self.loaded()
        execution = self.act(client, ["write", "text\n"], ["sleep", 0.3], ["value", {"a": [1, 2.5, None]}])
        self.assertEqual(("success", None), execution.outcome)
        self.assertEqual({"a": [1, 2.5, None]}, execution.output)
        self.assertEqual((b"text\n", "", 0), (execution.log, execution.message, execution.dropped))
        self.assertTrue(0.29 <= execution.duration < 5, execution)

    def test_an_input_may_be_null(self) -> None:
        client = self.loaded()
        execution = client.invoke(None)
        self.assertEqual(("success", None), (execution.status, execution.output))

    def test_an_input_that_is_neither_object_nor_null_is_the_callers_mistake(self) -> None:
        client = self.loaded()
        for body in (
            b"",
            b"[1]",
            b'"text"',
            b"5",
            b"true",
            b"{",
            b"{}{}",
            b"nil",
            b'{"steps": NaN}',
            b"\xff",
        ):
            client.send_invoke(body)
            self.assert_failed(client.receive_execution(), "bad_arguments")
        self.assert_serves(client)

    def test_white_space_around_an_input_is_no_matter(self) -> None:
        client = self.loaded()
        client.send_invoke(b' \r\n\t{"steps": [["value", 1]]}\n')
        self.assertEqual(1, client.receive_execution().output)

    def test_any_character_passes(self) -> None:
        client = self.loaded()
        self.assertEqual(ODD_TEXT, self.value(client, ["value", ODD_TEXT]))

    def test_an_input_of_16_mib_and_a_result_of_as_much_pass(self) -> None:
        client = self.loaded(max_result=MAX_INPUT)
        head, tail = b'{"steps": [["value", "', b'"]]}'
        text = "x" * (MAX_INPUT - len(head + tail))
        client.send_invoke(head + text.encode() + tail, timeout=60)
        self.assertEqual(text, client.receive_execution().output)
        self.assert_serves(client)

    def test_a_result_that_is_not_json_is_the_functions_mistake(self) -> None:
        client = self.loaded()
        for _ in range(2):
            self.assert_failed(self.act(client, ["odd"]), "result_not_json")
        self.assert_serves(client)

    def test_a_result_over_the_cap_says_both_sizes(self) -> None:
        client = self.loaded(max_result=1000)
        self.assertEqual(998, len(self.value(client, ["repeat", "x", 998])))
        execution = self.act(client, ["repeat", "x", 999])
        self.assert_failed(execution, "result_too_large")
        self.assertIn("1001", execution.message)
        self.assertIn("1000", execution.message)
        self.assert_serves(client)

    def test_a_function_knows_its_call(self) -> None:
        client = self.loaded(labels={"function_id": "f-1", "function_version": 7})
        for execution in ("e-1", "E_2", "e" * 64):
            answer = client.invoke({"steps": [["context"]]}, execution=execution)
            self.assertEqual([execution, "f-1", 7], answer.output)

    def test_the_environment_is_the_functions_own(self) -> None:
        client = self.loaded(environment={"NAME": "v\u00e4lue", "EMPTY": "", "LANG": "C"})
        environment = self.value(client, ["environment"])
        self.assertEqual(
            ("v\u00e4lue", "", "C"), tuple(environment[name] for name in ("NAME", "EMPTY", "LANG"))
        )
        usual = {"PATH", "HOME", "LANG", "TMPDIR", "NAME", "EMPTY"}
        self.assertEqual(usual, {name for name in environment if not name.startswith("FUNCPLAT_")})
        self.assertIn("NAME=v\u00e4lue\n", self.value(client, ["ask", "env"]))

    def test_the_working_directory_is_the_scratch_space(self) -> None:
        client = self.loaded()
        where = self.value(client, ["save", "file", "text"], ["ask", "pwd"]).strip()
        environment = self.value(client, ["environment"])
        self.assertEqual((where, where), (environment["HOME"], environment["TMPDIR"]))
        self.assertEqual("text", self.value(client, ["ask", "cat", f"{where}/file"]))

    def test_standard_input_is_empty(self) -> None:
        self.assertEqual("", self.value(self.loaded(), ["ask", "cat"]))

    def test_each_of_many_different_calls_has_its_own_answer(self) -> None:
        self.loaded()
        callers = [self.in_background(functools.partial(self._calls, seed)) for seed in range(3)]
        self.assertEqual([[]] * 3, [wrong() for wrong in callers])

    def _calls(self, seed: int) -> list[Any]:
        """What was wrong with many calls in a row."""
        chance = random.Random(seed)  # noqa: S311
        client, wrong = self.connect(), []
        kinds: dict[str, tuple[list[Any], str | None]] = {
            "short": (["value", 0], None),
            "long": (["sleep", 0.02], None),
            "raise": (["fail", "x"], "function_raised"),
            "exit": (["exit", 3], "function_exited"),
            "leave": (["spawn", "sleep", "60"], "processes_killed"),
            "lines": (["write", "x" * 70_000 + "\n"], None),
        }
        for number in range(60):
            kind = chance.choices(list(kinds), (20, 4, 3, 1, 1, 3))[0]
            step, reason = kinds[kind]
            text = f"{seed}-{number}"
            answer = self.act(client, ["write", f"{text}\n"], step, ["value", text])
            good = answer.log.startswith(f"{text}\n".encode()) and answer.reason == reason
            expected = {"short": 0, "long": 0, "leave": 0, "lines": 70_001}.get(kind)
            if expected is not None:
                good &= answer.output == text and len(answer.log) == len(text) + 1 + expected
            wrong += [] if good else [(number, kind, answer)]
        return wrong


class AccessTests(WorkerCase):
    """Which calls are refused."""

    def test_requests_need_the_secret(self) -> None:
        client = self.loaded()
        for secret in ("", "wrong", SECRET[:-1], SECRET + "x", SECRET * 2, SECRET.upper()):
            stranger = self.connect()
            stranger.send_invoke({"steps": [["save", "ran", ""]]}, secret=secret)
            self.assertEqual(403, stranger.receive().status, secret)
            self.assertEqual(403, stranger.log("execution=e1", secret).status)
            self.assertEqual(403, stranger.drain(secret).status)
        stranger = self.connect()
        stranger.known = True  # as if the worker had said so: no secret is sent
        stranger.send_invoke()
        self.assertEqual(403, stranger.receive().status)
        self.value(client, ["run", "test", "!", "-e", "ran"])

    def test_a_connection_that_is_known_needs_no_secret_for_calls_and_for_nothing_else(self) -> None:
        client = self.loaded()
        for _ in range(5):
            self.value(client, ["count"])
        self.assertEqual(403, client.ask("GET", "/log?execution=e1").status)
        self.assertEqual(403, client.ask("POST", "/drain").status)
        client.send_invoke(secret="wrong")  # noqa: S106
        self.assertEqual(403, client.receive().status)
        self.assertEqual("loaded", client.ready()["state"])
        self.assertEqual(6, self.value(client, ["count"]))

    def test_a_call_needs_its_headers(self) -> None:
        client = self.loaded()
        good = {"x_secret": SECRET, "x_execution": "e", "x_timeout": "1"}
        for name, values in (
            ("x_execution", ("", "a b", "e" * 65, "a/b", "e.1", "e,f")),
            ("x_timeout", ("", "0", "0.0", "-1", "nan", "inf", "1e3", "1.", ".5", "1,5", "1" * 10, "1 2")),
        ):
            for value in values:
                answer = client.ask("POST", "/invoke", b"null", **{**good, name: value})
                self.assertEqual(400, answer.status, (name, value))
            answer = client.ask("POST", "/invoke", b"null", **{k: v for k, v in good.items() if k != name})
            self.assertEqual(400, answer.status, name)
        self.assertEqual(1, self.value(client, ["count"]))

    def test_one_call_too_many_is_refused_before_any_work(self) -> None:
        client = self.loaded(concurrency=1)
        other = self.begin(client, ["count"], ["sleep", 0.6], ["count"])
        for text in ("", "x" * 300_000):
            other.send_invoke({"steps": [["count"], ["value", text]]})
            self.assertEqual(429, other.receive().status)
        self.assertEqual(2, client.receive_execution().output)
        self.assertEqual(3, self.value(other, ["count"]))

    def test_as_many_calls_run_at_once_as_the_concurrency_says(self) -> None:
        clients = [self.loaded(concurrency=3), self.connect(), self.connect()]
        for number, client in enumerate(clients):
            client.send_invoke(
                {"steps": [["write", f"{number}"], ["sleep", 1.0], ["pid"]]}, execution=f"e{number}"
            )
        other = self.connect()
        self.wait_for(lambda: other.ready()["busy"] == 3, "three executions")
        other.send_invoke()
        self.assertEqual(429, other.receive().status)
        executions = [client.receive_execution() for client in clients]
        self.assertEqual([b"0", b"1", b"2"], [each.log for each in executions])
        self.assertEqual(3, len({each.output for each in executions}), "handlers run one call at a time")

    def test_a_handler_is_used_again(self) -> None:
        client = self.loaded()
        steps = ["value", 0], ["pid"]
        self.assertEqual(1, len({self.value(client, *steps) for _ in range(10)}))

    def test_a_refused_call_may_be_made_again_on_its_connection(self) -> None:
        client = self.start()
        client.send_invoke()
        self.assertEqual(409, client.receive().status)
        self.assertEqual(200, client.load(self.package()).status)
        client.send_invoke(secret="wrong")  # noqa: S106
        self.assertEqual(403, client.receive().status)
        self.assert_serves(client)


class TimeoutTests(WorkerCase):
    """``x-timeout``."""

    def test_a_timeout_kills_the_execution_and_keeps_its_log(self) -> None:
        client = self.loaded()
        for how in ("sleep", "spin"):
            execution = self.act(client, ["write", "before\n"], [how, 60], timeout=1.0)
            self.assert_failed(execution, "timeout", "Function execution timeout.")
            self.assertEqual(b"before\n", execution.log)
            self.assertTrue(1.0 <= execution.duration < 1.8, execution)
            self.assertEqual(1, self.value(client, ["count"]), "the next call gets a fresh handler")

    def test_a_call_in_time_stays_untouched(self) -> None:
        client = self.loaded()
        self.assertEqual(
            [1, 2], [self.value(client, ["sleep", 0.2], ["count"], timeout=1.5) for _ in range(2)]
        )
        time.sleep(1.7)  # past what would have been the end of both
        self.assertEqual(3, self.value(client, ["count"]))

    def test_the_timeout_counts_from_the_call_of_the_function(self) -> None:
        client = self.loaded(["spin", 0.8])
        self.assertEqual(1, self.value(client, ["count"], timeout=0.5))

    def test_a_timeout_may_be_as_long_as_its_digits_allow(self) -> None:
        client = self.loaded()
        client.ask("GET", "/ready")
        headers = {"x_secret": SECRET, "x_timeout": "999999999.999999999", "x_execution": "e"}
        client.send("POST", "/invoke", b'{"steps": [["sleep", 0.1], ["value", 1]]}', **headers)
        self.assertEqual(1, client.receive_execution().output)

    def test_a_timeout_may_be_shorter_than_any_call(self) -> None:
        client = self.loaded()
        self.assert_serves(client, client, client)
        execution = client.invoke({"steps": [["sleep", 5]]}, timeout=0.000_000_001)
        self.assert_failed(execution, "timeout")
        self.assertLess(execution.duration, 2)
        self.assert_serves(client)

    def test_a_handler_that_stops_itself_runs_into_its_timeout(self) -> None:
        client = self.loaded()
        self.assert_failed(self.act(client, ["kill", 19], timeout=0.4), "timeout")
        self.assert_serves(client)

    def test_one_of_several_executions_runs_into_its_timeout_alone(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["sleep", 60], timeout=0.5)
        self.assertEqual(5, self.value(other, ["sleep", 0.8], ["value", 5]))
        self.assert_failed(client.receive_execution(), "timeout")

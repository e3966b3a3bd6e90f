"""Executions over HTTP (API.md section 8)."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

from tests.functional.platform import ApiTest, token_of, until

ECHO = "def main(*args, **kwargs): return [list(args), kwargs]"
SLEEP = """
    import time
    def main(seconds=0, word="slept"):
        print(word, flush=True)
        time.sleep(seconds)
        return word
"""
FIELDS = {
    "id",
    "function_id",
    "function_version",
    "function_alias",
    "description",
    "status",
    "sync",
    "input",
    "result",
    "project_id",
    "created_at",
    "updated_at",
}


class CallTests(ApiTest):
    def test_a_synchronous_execution_is_answered_when_it_has_ended(self) -> None:
        function = self.create()
        execution = self.execute(function, input='{"name": "Ann"}', description="text")
        self.assertEqual(set(), FIELDS - execution.keys())
        expected = (function["id"], 0, None, "text", "success", True, self.project)
        names = (
            "function_id",
            "function_version",
            "function_alias",
            "description",
            "status",
            "sync",
            "project_id",
        )
        self.assertEqual(expected, tuple(execution[name] for name in names))
        result = json.loads(execution["result"])
        self.assertEqual("Hello, Ann!", result["output"])
        self.assertGreaterEqual(result["duration"], 0)
        self.assertEqual(execution, self.ok(200, self.api.get(f"/v1/executions/{execution['id']}")))

    def test_an_asynchronous_execution_is_answered_at_once_and_ends_later(self) -> None:
        function = self.create(SLEEP)
        for sync in (False, "false", 0):
            execution = self.execute(function, sync=sync, input='{"seconds": 0.3}')
            self.assertEqual(
                ("running", None, False), (execution["status"], execution["result"], execution["sync"])
            )
            self.assertIsNone(execution["updated_at"])
            self.assertEqual("slept", self.output(self.finished(execution)))

    def test_as_the_old_client_sends_it(self) -> None:
        function = self.create()
        body = {"function_version": None, "function_alias": None, "sync": True, "input": None}
        self.assertEqual("Hello, World!", self.output(self.execute(function, **body)))
        self.assertEqual("success", self.execute(function, function_version="0", sync=None)["status"])

    def test_the_count_is_raised_once_by_each_execution(self) -> None:
        function = self.create(SLEEP)
        path = f"/v1/functions/{function['id']}"
        self.execute(function)
        self.execute(function, input='{"seconds": 1.3}')  # long enough for a row before its end
        self.execute(function, input='{"nonsense": 1}')
        for seconds in ("0", "1.3"):
            self.finished(self.execute(function, sync=False, input=f'{{"seconds": {seconds}}}'))
        self.assertEqual(5, self.ok(200, self.api.get(path))["count"])
        self.refused(
            400,
            "invalid_request",
            self.api.post("/v1/executions", {"function_id": function["id"], "input": 5}),
        )
        self.assertEqual(5, self.ok(200, self.api.get(path))["count"])

    def test_bodies_that_cannot_be_used_are_400(self) -> None:
        function = self.create()["id"]
        for body, word in (
            ({}, "function_id"),
            ({"function_id": None, "function_alias": None}, "function_id"),
            ({"function_id": "abc"}, "Expected a uuid"),
            ({"function_id": 5}, "function_id"),
            ({"function_id": function, "colour": 1}, "Unknown attribute"),
            ({"function_id": function, "status": "success"}, "Cannot set read only field"),
            ({"function_id": function, "result": "x"}, "Cannot set read only field"),
            ({"function_id": function, "project_id": "x"}, "Cannot set read only field"),
            ({"function_id": function, "sync": "perhaps"}, "sync"),
            ({"function_id": function, "function_version": -1}, "function_version"),
            ({"function_id": function, "function_version": "x"}, "function_version"),
            ({"function_id": function, "function_version": 10**30}, "function_version"),
            ({"function_id": function, "description": "x" * 256}, "255"),
            ({"function_id": function, "description": "a\0"}, "description"),
            ({"function_id": function, "input": 5}, "input"),
            ({"function_id": function, "input": [1]}, "input"),
            ({"function_id": function, "input": True}, "input"),
            ({"function_id": function, "input": "a\0b"}, "input"),
            ([], ""),
        ):
            self.refused(400, "invalid_request", self.api.post("/v1/executions", body), word)
        for content in (b"", b"nonsense", b"\xff", b'{"input": "\\ud800"}', b"[" * 5000):
            self.refused(400, "invalid_request", self.api.post("/v1/executions", content=content))
        self.assertEqual([], self.ok(200, self.api.get("/v1/executions"))["executions"])

    def test_what_does_not_exist_is_404(self) -> None:
        function = self.create()["id"]
        for body in (
            {"function_id": str(uuid.uuid4())},
            {"function_id": function, "function_version": 1},
            {"function_alias": "no-such"},
            {"function_alias": "no-such", "function_id": function},
        ):
            self.refused(404, "not_found", self.api.post("/v1/executions", body), "not found")

    def test_a_runtime_that_is_not_available_is_409(self) -> None:
        runtime = self.runtime()
        function = self.create(runtime_id=runtime)
        rows = self.platform.services.db
        with rows.write() as connection:
            connection.exec_driver_sql("UPDATE runtimes SET status = 'error' WHERE id = ?", (runtime,))
        body = {"function_id": function["id"]}
        # What is changed behind the server's back is known to it within a second; a call that it lets in
        # until then ends with the reason.
        until(
            lambda: self.api.post("/v1/executions", body).status_code == 409, "the runtime's state is known"
        )
        for sync in (True, False):
            answer = self.api.post("/v1/executions", {**body, "sync": sync})
            self.refused(409, "runtime_not_available", answer, "is not available")

    def test_deleting(self) -> None:
        function = self.create()
        path = f"/v1/executions/{self.execute(function)['id']}"
        self.assertEqual(b"", self.ok(204, self.api.delete(path)) or b"")
        for answer in (self.api.get(path), self.api.delete(path), self.api.get(f"{path}/log")):
            self.refused(404, "not_found", answer, "Execution not found")
        for method in ("GET", "DELETE"):
            self.refused(400, "invalid_request", self.api(method, "/v1/executions/abc"), "Expected a uuid")
        self.refused(405, "method_not_allowed", self.api.put(path, {"description": "x"}))

    def test_a_running_execution_may_be_deleted_and_runs_on(self) -> None:
        function = self.create(SLEEP, timeout="20")
        answers: list[dict[str, Any]] = []
        call = threading.Thread(
            target=lambda: answers.append(
                self.execute(function, api=self.caller(token_of(self.project)), input='{"seconds": 3}')
            )
        )
        call.start()
        listed = until(lambda: self.api.get("/v1/executions").json()["executions"], "it has a row")
        self.assertEqual("running", listed[0]["status"])
        self.ok(204, self.api.delete(f"/v1/executions/{listed[0]['id']}"))
        call.join()
        self.assertEqual("slept", self.output(answers[0]))
        self.refused(404, "not_found", self.api.get(f"/v1/executions/{listed[0]['id']}"))
        self.refused(404, "not_found", self.api.get(f"/v1/executions/{listed[0]['id']}/log"))
        self.assertEqual("slept", self.output(self.execute(function)))

    def test_a_function_deleted_under_a_queued_execution_ends_it_with_the_reason(self) -> None:
        function = self.create(SLEEP)
        executions = [self.execute(function, sync=False, input='{"seconds": 0.2}') for _ in range(20)]
        self.ok(204, self.api.delete(f"/v1/functions/{function['id']}"))
        for ended in [self.finished(each) for each in executions]:
            if ended["status"] != "success":
                self.assertIn(ended["reason"]["code"], ("function_deleted", "worker_stopped"), ended)


class InputTests(ApiTest):
    def setUp(self) -> None:
        super().setUp()
        self.function = self.create(ECHO)

    def called_with(self, **fields: Any) -> tuple[Any, Any]:
        """What is echoed as the input, and what the function got."""
        execution = self.execute(self.function, **fields)
        args, kwargs = self.output(execution)
        kwargs.pop("context", None)
        return execution["input"], [args, kwargs]

    def test_an_object_becomes_keyword_arguments_and_is_written_anew(self) -> None:
        echoed, got = self.called_with(input='{"name":"Q",  "n": [1, null, {"a": 1.5}]}')
        self.assertEqual('{"name": "Q", "n": [1, null, {"a": 1.5}]}', echoed)
        self.assertEqual([[], {"name": "Q", "n": [1, None, {"a": 1.5}]}], got)

    def test_an_object_may_be_given_as_it_is(self) -> None:
        echoed, got = self.called_with(input={"name": "Q"})
        self.assertEqual(('{"name": "Q"}', [[], {"name": "Q"}]), (echoed, got))

    def test_what_is_no_object_is_one_argument_of_text(self) -> None:
        for text in (
            "plain text",
            "5",
            "5.5",
            "true",
            '"quoted"',
            "[1, 2]",
            "{broken",
            " padded ",
            "ünï 🎉",
            "{}x",
        ):
            self.assertEqual((text, [[text], {}]), self.called_with(input=text))

    def test_no_input(self) -> None:
        for fields in ({}, {"input": None}, {"input": "null"}, {"input": ""}):
            self.assertEqual((None, [[], {}]), self.called_with(**fields))
        self.assertEqual(("{}", [[], {}]), self.called_with(input="{}"))

    def test_the_key_of_plain_input_may_be_given_with_others(self) -> None:
        _, got = self.called_with(input='{"__function_input": "x", "more": 1}')
        self.assertEqual([["x"], {"more": 1}], got)

    def test_the_context_cannot_be_given(self) -> None:
        function = self.create("def main(context): return context")
        context = self.output(self.execute(function, input='{"context": "mine"}'))
        self.assertIsNone(context["os_session"])

    def test_input_with_characters_beyond_any_alphabet(self) -> None:
        execution = self.execute(self.function, input='{"a": "\\ud800 \\u0000 \\u2028"}')
        self.assertEqual({"a": "\ud800 \0 \u2028"}, json.loads(execution["input"]))
        self.assertIn(execution["status"], ("success", "failed"))

    def test_deep_nesting_is_400_or_works_but_never_hurts(self) -> None:
        for depth in (10, 500, *range(900, 1000, 5), 5000, 100_000):
            text = '{"a":' * depth + "1" + "}" * depth
            for value in (text, json.loads(text) if depth < 900 else text):
                answer = self.api.post("/v1/executions", {"function_id": self.function["id"], "input": value})
                self.assertIn(answer.status_code, (201, 400, 413), depth)
        raw = b'{"function_id": "%s", "input": %s}'
        for depth in (500, 900, 950, 980, 990, 1000, 2000):
            content = raw % (self.function["id"].encode(), b'{"a":' * depth + b"1" + b"}" * depth)
            self.assertIn(self.api.post("/v1/executions", content=content).status_code, (201, 400), depth)

    def test_numbers_that_are_none(self) -> None:
        for text in ('{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}"):
            execution = self.execute(self.function, input=text)
            self.assertIn(execution["status"], ("success", "failed"))

    def test_input_over_the_limit_is_413(self) -> None:
        for value in ('{"a": "' + "x" * 1_048_576 + '"}', "x" * 1_048_577, {"a": "x" * 1_048_576}):
            answer = self.api.post("/v1/executions", {"function_id": self.function["id"], "input": value})
            self.refused(413, "too_large", answer, "1048576")
        self.assertEqual("success", self.execute(self.function, input="x" * 500_000)["status"])


class FailureTests(ApiTest):
    def failed(self, source: str, reason: str, **fields: Any) -> dict[str, Any]:
        function = self.create(source, **{"timeout": "1", **fields})
        execution = self.execute(function)
        self.assertEqual(
            ("failed", reason), (execution["status"], (execution["reason"] or {}).get("code")), execution
        )
        self.assertTrue(execution["reason"]["message"])
        self.assertIn("output", json.loads(execution["result"]))
        return execution

    def test_a_function_that_fails_is_a_result_with_a_reason(self) -> None:
        for source, reason in (
            ("def main(): raise ValueError('too bad')", "function_raised"),
            ("def main(): import os; os._exit(3)", "function_exited"),
            ("def main(): import os; os.kill(os.getpid(), 11)", "function_crashed"),
            ("def main(): return object()", "result_not_json"),
            ("def main(needed): pass", "bad_arguments"),
            ("raise ValueError('at import')", "import_failed"),
            ("def other(): pass", "entry_not_found"),
            ("def main(): return 'x' * 2_000_000", "result_too_large"),
            ("def main():\n while True: pass", "timeout"),
        ):
            self.failed(source, reason)

    def test_outputs_are_those_of_the_old_server(self) -> None:
        raised = self.failed("def main(): raise ValueError('too bad')", "function_raised")
        self.assertEqual("too bad", json.loads(raised["result"])["output"])
        late = self.failed("import time\ndef main(): time.sleep(9)", "timeout")
        self.assertEqual("Function execution timeout.", json.loads(late["result"])["output"])

    def test_asynchronous_failures_are_settled_alike(self) -> None:
        function = self.create("def main(): raise ValueError('too bad')")
        ended = self.finished(self.execute(function, sync=False))
        self.assertEqual(("failed", "function_raised"), (ended["status"], ended["reason"]["code"]))

    def test_a_worker_goes_on_after_a_failure(self) -> None:
        function = self.create("import os\ndef main(fail=False):\n if fail: os._exit(1)\n return 'well'")
        for _ in range(3):
            self.assertEqual("failed", self.execute(function, input='{"fail": true}')["status"])
            self.assertEqual("well", self.output(self.execute(function)))


class LogTests(ApiTest):
    def log(self, execution: dict[str, Any], **query: Any) -> Any:
        return self.api.get(f"/v1/executions/{execution['id']}/log", **query)

    def test_a_log_is_text_between_a_line_of_start_and_one_of_end(self) -> None:
        execution = self.execute(self.create())
        answer = self.log(execution)
        self.assertEqual(
            (200, "text/plain; charset=utf-8"), (answer.status_code, answer.headers["content-type"].lower())
        )
        name = execution["id"]
        self.assertEqual(
            f"Start execution: {name}\ngreeting World\nFinished execution: {name}\n", answer.text
        )
        self.assertEqual(
            ("true", str(len(answer.content))),
            (answer.headers["X-Log-Complete"], answer.headers["X-Log-Offset"]),
        )

    def test_output_without_a_newline_and_no_output(self) -> None:
        for source, expected in (
            ("import sys\ndef main(): sys.stdout.write('abc')", ["abc"]),
            ("def main(): pass", []),
            ("import sys\ndef main(): print('o', flush=True); print('e', file=sys.stderr)", ["o", "e"]),
        ):
            execution = self.execute(self.create(source))
            self.assertEqual(expected, self.log(execution).text.splitlines()[1:-1])

    def test_a_log_has_the_traceback_of_a_failure(self) -> None:
        text = self.log(self.execute(self.create("def main(): raise ValueError('too bad')"))).text
        self.assertIn("Traceback", text)
        self.assertIn("ValueError: too bad", text)

    def test_after_a_timeout_the_line_of_the_end_is_missing(self) -> None:
        execution = self.execute(self.create(SLEEP, timeout="1"), input='{"seconds": 9}')
        answer = self.log(execution)
        self.assertEqual(f"Start execution: {execution['id']}\nslept\n", answer.text)
        self.assertEqual("true", answer.headers["X-Log-Complete"])

    def test_bytes_that_are_no_utf_8_are_replaced(self) -> None:
        execution = self.execute(self.create("import os\ndef main(): os.write(1, b'a\\xffb\\n')"))
        self.assertIn("a\ufffdb\n", self.log(execution).text)

    def test_an_offset_skips_bytes(self) -> None:
        execution = self.execute(self.create())
        whole = self.log(execution).content
        for offset in (0, 10, len(whole), len(whole) + 10):
            answer = self.log(execution, offset=offset)
            self.assertEqual(whole[offset:], answer.content)
            self.assertEqual(str(max(offset, len(whole))), answer.headers["X-Log-Offset"])
        for query in ({"offset": "-1"}, {"offset": "x"}, {"wait": "x"}, {"offset": "9" * 5000}):
            self.refused(400, "invalid_request", self.log(execution, **query))

    def test_a_running_execution_is_followed_to_its_end(self) -> None:
        source = (
            "import time\ndef main():\n for n in range(3):\n  print('line', n, flush=True)\n  time.sleep(0.4)"
        )
        execution = self.execute(self.create(source), sync=False)
        text, offset, rounds = b"", 0, 0
        while True:
            answer = self.log(execution, offset=offset, wait=10)
            text, offset, rounds = text + answer.content, int(answer.headers["X-Log-Offset"]), rounds + 1
            if answer.headers["X-Log-Complete"] == "true":
                break
            self.assertLess(rounds, 50)
        name = execution["id"]
        expected = f"Start execution: {name}\nline 0\nline 1\nline 2\nFinished execution: {name}\n"
        self.assertEqual(expected, text.decode())
        self.assertGreater(rounds, 1)

    def test_a_log_that_does_not_exist_is_404(self) -> None:
        self.refused(404, "not_found", self.log({"id": str(uuid.uuid4())}), "Execution not found")
        self.refused(400, "invalid_request", self.log({"id": "abc"}), "Expected a uuid")

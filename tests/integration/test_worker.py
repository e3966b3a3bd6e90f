"""What a worker does for well-behaved functions, and how it speaks its protocol."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import time
import zipfile

import testtools

from funcplat.worker import verdicts
from tests.integration import worker_harness

HELLO = """
def main(name="World"):
    return {"hello": name}
"""


class FunctionTest(worker_harness.WorkerTestCase):
    def test_a_function_is_called_with_its_input_as_keywords(self) -> None:
        client = self.loaded(HELLO)
        execution = client.invoke({"name": "Qinling"})
        self.assertEqual(("success", {"hello": "Qinling"}), (execution.status, execution.output))
        self.assertEqual((None, b"", 0), (execution.reason, execution.log, execution.dropped))
        self.assertTrue(0 <= execution.duration < 5)

    def test_input_null_means_no_arguments(self) -> None:
        self.assertEqual({"hello": "World"}, self.loaded(HELLO).invoke(None).output)

    def test_an_input_that_is_no_object_is_the_first_positional_argument(self) -> None:
        client = self.loaded("def main(text, times=1): return text * times")
        self.assertEqual("abab", client.invoke({"__function_input": "ab", "times": 2}).output)

    def test_an_entry_may_be_deep_in_a_package(self) -> None:
        client = self.start()
        pushed = worker_harness.package(a____init__="", a__b="class T:\n pass\ndef run(): return __name__")
        self.assertEqual(200, client.load(pushed, entry="a.b.run").status)
        self.assertEqual("a.b", client.invoke().output)

    def test_module_state_survives_between_executions(self) -> None:
        client = self.loaded("n = 0\ndef main():\n  global n\n  n += 1\n  return n")
        self.assertEqual([1, 2, 3], [client.invoke().output for _ in range(3)])

    def test_context_is_passed_where_the_function_takes_it(self) -> None:
        client = self.loaded("def main(context, **rest): return [context, rest]")
        context = {
            "os_session": None,
            "execution_id": "e-7",
            "function_id": "f-1",
            "function_version": 0,
        }
        self.assertEqual(
            [context, {"a": 1}], client.invoke({"context": "mine", "a": 1}, execution="e-7").output
        )

    def test_context_is_in_the_keywords_of_a_function_that_takes_any(self) -> None:
        self.assertIn("context", self.loaded("def main(**kw): return kw").invoke().output)

    def test_context_is_not_forced_upon_a_function_without_it(self) -> None:
        self.assertEqual([], self.loaded("def main(*args): return args").invoke().output)

    def test_a_coroutine_function_is_awaited(self) -> None:
        client = self.loaded("import asyncio\nasync def main(n):\n  await asyncio.sleep(0)\n  return n")
        self.assertEqual(5, client.invoke({"n": 5}).output)

    def test_a_decorated_coroutine_is_awaited(self) -> None:
        client = self.loaded("async def inner(): return 1\ndef main(): return inner()")
        self.assertEqual(1, client.invoke().output)

    def test_huge_integers_can_be_printed(self) -> None:
        client = self.loaded("def main(): return len(str(10 ** 50000))")
        self.assertEqual(50001, client.invoke().output)

    def test_the_environment_is_the_functions_own(self) -> None:
        client = self.loaded("import os\ndef main(): return dict(os.environ)", environment={"NAME": "value"})
        environment = client.invoke().output
        self.assertEqual("value", environment["NAME"])
        self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR", "NAME"}, set(environment))

    def test_the_working_directory_is_the_scratch_space(self) -> None:
        client = self.loaded("import os\ndef main(): return os.getcwd()")
        self.assertEqual(f"{self.directory}/scratch", client.invoke().output)

    def test_the_platform_cannot_be_imported_or_seen(self) -> None:
        client = self.loaded(
            """
            import sys
            def main():
                try:
                    import funcplat
                except ImportError:
                    return [name for name in sys.modules if "funcplat" in name] + sys.path[:1]
            """
        )
        self.assertEqual([f"{self.directory}/package"], client.invoke().output)

    def test_a_module_of_the_package_may_be_called_like_one_of_the_library(self) -> None:
        client = self.start()
        path = self.write(
            main="import json, code\ndef main(): return [json.X, code.X]", json="X=1", code="X=2"
        )
        client.load(path=path)
        self.assertEqual([1, 2], client.invoke().output)

    def test_the_supervisors_objects_cannot_be_found(self) -> None:
        client = self.loaded(
            """
            import gc, sys
            def main():
                found = [type(o).__name__ for o in gc.get_objects() if ".service." in str(type(o))]
                frame, names = sys._getframe(), []
                while frame:
                    names.append(frame.f_code.co_name)
                    frame = frame.f_back
                return found + [name for name in names if name in ("accept", "_load", "start")]
            """
        )
        self.assertEqual([], client.invoke().output)

    def test_the_secret_cannot_be_found(self) -> None:
        client = self.loaded(
            """
            import gc, sys
            def main(half):
                seen, found, frame = set(), [], sys._getframe()
                gc.unfreeze()
                todo = [*gc.get_objects()]
                while frame:
                    todo += [frame, *frame.f_locals.values()]
                    frame = frame.f_back
                while todo:
                    one = todo.pop()
                    if id(one) not in seen:
                        seen.add(id(one))
                        todo += gc.get_referents(one)
                        if type(one) in (str, bytes) and half + "t" in str(one):
                            found.append(str(one)[:200])
                return found
            """
        )
        self.assertEqual([], client.invoke({"half": worker_harness.SECRET[:-5]}, timeout=60).output)

    def test_no_descriptor_is_open_but_the_standard_ones_and_three_to_the_supervisor(self) -> None:
        client = self.loaded("import os\ndef main(): return sorted(map(int, os.listdir('/proc/self/fd')))")
        execution = client.invoke()
        # The channel, the timer of its calls and its output; 3 is the directory that is listed.
        self.assertEqual([0, 1, 2, 500, 501, 502], [fd for fd in execution.output if fd != 3])

    def test_concurrent_executions_have_handlers_of_their_own(self) -> None:
        client = self.loaded("import os, time\ndef main(): time.sleep(0.2); print('x'); return os.getpid()")
        others = [client, self.connect(), self.connect()]
        for number, one in enumerate(others):
            one.send_invoke(execution=f"e{number}")
        executions = [one.receive_execution() for one in others]
        self.assertEqual(3, len({execution.output for execution in executions}))
        self.assertEqual([b"x\n"] * 3, [execution.log for execution in executions])

    def test_an_idle_worker_has_one_handler(self) -> None:
        client = self.loaded("import os\ndef main(): return os.getpid()")
        self.assertEqual(1, len({client.invoke().output for _ in range(10)}))
        self.assertEqual(1, len(self.handlers()))


class FailureTest(worker_harness.WorkerTestCase):
    def assert_failed(
        self, execution: worker_harness.Execution, reason: str, output: str | None = None
    ) -> None:
        self.assertEqual(("failed", reason), (execution.status, execution.reason), execution)
        self.assertTrue(execution.message)
        if output is not None:
            self.assertEqual(output, execution.output)

    def test_an_exception_is_the_result_and_its_traceback_is_in_the_log(self) -> None:
        client = self.loaded("def f(): raise ValueError('bad thing')\ndef main(): f()")
        execution = client.invoke()
        self.assert_failed(execution, "function_raised", "bad thing")
        log = execution.log.decode()
        self.assertTrue(log.startswith("Traceback (most recent call last):\n"), log)
        self.assertEqual(2, log.count('File "'), log)
        self.assertIn("main.py", log)
        self.assertTrue(log.endswith("ValueError: bad thing\n"), log)
        self.assert_failed(client.invoke(), "function_raised")

    def test_an_exception_without_text_is_named_by_its_type(self) -> None:
        self.assert_failed(
            self.loaded("def main(): raise KeyError()").invoke(), "function_raised", "KeyError"
        )

    def test_what_was_printed_before_an_exception_comes_before_its_traceback(self) -> None:
        execution = self.loaded("def main(): print('a', end=''); raise ValueError('b')").invoke()
        self.assertTrue(execution.log.startswith(b"aTraceback"), execution.log)

    def test_arguments_that_do_not_fit_are_named(self) -> None:
        client = self.loaded("def main(a, *, b=1): return a")
        for value, complaint in (
            ({}, "missing a required argument: 'a'"),
            ({"a": 1, "c": 2}, "unexpected keyword argument 'c'"),
            ({"__function_input": "x", "a": 1}, "multiple values for argument 'a'"),
        ):
            execution = client.invoke(value)
            self.assert_failed(execution, "bad_arguments")
            self.assertIn(complaint, execution.message)
            self.assertIn("main(a, *, b=1)", execution.message)

    def test_a_type_error_of_the_function_is_not_a_matter_of_arguments(self) -> None:
        execution = self.loaded("def main(): return len(5)").invoke()
        self.assert_failed(execution, "function_raised", "object of type 'int' has no len()")

    def test_a_missing_module_is_named_with_what_the_package_holds(self) -> None:
        execution = self.loaded(HELLO, entry="missing.main").invoke()
        self.assert_failed(execution, "entry_not_found")
        self.assertIn("no module 'missing'", execution.message)
        self.assertIn("main.py", execution.message)

    def test_a_missing_function_is_named_with_what_the_module_has(self) -> None:
        execution = self.loaded(HELLO, entry="main.missing").invoke()
        self.assert_failed(execution, "entry_not_found")
        self.assertIn("no function named 'missing'; it has main", execution.message)

    def test_a_module_that_misses_a_dependency_failed_to_be_imported(self) -> None:
        execution = self.loaded("import no_such_dependency").invoke()
        self.assert_failed(execution, "import_failed", "No module named 'no_such_dependency'")

    def test_an_import_that_raises_is_tried_again_by_a_later_call(self) -> None:
        client = self.loaded(
            """
            import os
            print("importing")
            os.mkdir("once")
            os.mkdir("twice") if os.path.exists("flag") else 1 / 0
            def main(): return "at last"
            """
        )
        execution = client.invoke()
        self.assert_failed(execution, "import_failed", "division by zero")
        self.assertTrue(execution.log.startswith(b"importing\nTraceback"), execution.log)
        self.assertNotIn(b"importlib", execution.log)
        pathlib.Path(self.directory, "scratch", "once").rmdir()
        pathlib.Path(self.directory, "scratch", "flag").touch()
        self.assertEqual("at last", client.invoke().output)

    def test_a_syntax_error_is_an_import_that_failed(self) -> None:
        execution = self.loaded("def main(:").invoke()
        self.assert_failed(execution, "import_failed")
        self.assertIn(b"SyntaxError", execution.log)

    def test_an_import_that_takes_too_long_is_killed(self) -> None:
        client = self.loaded("import time\nprint('zzz')\ntime.sleep(60)", import_timeout=0.3)
        execution = client.invoke(timeout=0.05)
        self.assert_failed(execution, "import_timeout")
        self.assertEqual(b"zzz\n", execution.log)

    def test_the_timeout_counts_from_the_call_of_the_function(self) -> None:
        client = self.loaded("import time\ntime.sleep(0.4)\ndef main(): return 1")
        self.assertEqual(1, client.invoke(timeout=0.2).output)

    def test_what_the_import_prints_belongs_to_the_first_execution(self) -> None:
        client = self.loaded("print('import')\ndef main(): print('call')")
        self.assertEqual([b"import\ncall\n", b"call\n"], [client.invoke().log for _ in range(2)])

    def test_a_timeout_kills_the_execution_and_keeps_its_log(self) -> None:
        client = self.loaded("import time\ndef main(n): print('before'); time.sleep(n); return n")
        execution = client.invoke({"n": 60}, timeout=0.2)
        self.assert_failed(execution, "timeout", "Function execution timeout.")
        self.assertEqual(b"before\n", execution.log)
        self.assertTrue(0.2 <= execution.duration < 5)
        self.assertEqual(0, client.invoke({"n": 0}).output)

    def test_results_that_are_not_json_say_why(self) -> None:
        client = self.loaded(
            """
            def main(which):
                loop = []
                loop.append(loop)
                deep = []
                for _ in range(100000):
                    deep = [deep]
                return [float("nan"), {1, 2}, {(1, 2): 3}, loop, object(), deep, b"x"][which]
            """
        )
        for which, complaint in enumerate(
            ("NaN", "set", "tuple", "Circular", "object", "recursion", "bytes")
        ):
            execution = client.invoke({"which": which})
            self.assert_failed(execution, "result_not_json")
            self.assertIn(complaint, execution.message)

    def test_a_result_over_the_cap_says_both_sizes(self) -> None:
        client = self.loaded("def main(n): return 'x' * n", max_result=1000)
        self.assertEqual("success", client.invoke({"n": 998}).status)
        execution = client.invoke({"n": 999})
        self.assert_failed(execution, "result_too_large")
        self.assertIn("1001", execution.message)
        self.assertIn("1000", execution.message)

    def test_large_inputs_and_results_pass(self) -> None:
        client = self.loaded("def main(text): return text", max_result=20_000_000)
        text = "x" * 10_000_000
        self.assertEqual(text, client.invoke({"text": text}).output)

    def test_a_result_with_any_character_is_ascii_on_the_wire(self) -> None:
        client = self.loaded("def main(text): return text")
        text = "h\u00e9 \u2028 \U0001f600 \ud800 \x00"
        self.assertEqual(text, client.invoke({"text": text}).output)

    def test_a_memory_error_is_the_memory_limit(self) -> None:
        self.assert_failed(
            self.loaded("def main(): raise MemoryError").invoke(),
            "memory_exceeded",
            "Function execution failed because of too much resource consumption",
        )

    def test_a_full_disk_is_named(self) -> None:
        client = self.loaded("def main():\n  with open('/dev/full', 'w') as f: f.write('x')")
        self.assert_failed(client.invoke(), "disk_full", "[Errno 28] No space left on device")

    def test_sys_exit_ends_the_process_with_its_code(self) -> None:
        client = self.loaded("import sys\ndef main(code): print('bye', end=''); sys.exit(code)")
        execution = client.invoke({"code": 3})
        self.assert_failed(execution, "function_exited", verdicts.RESOURCES_TEXT)
        self.assertIn("exit code 3", execution.message)
        self.assertEqual(b"bye", execution.log)
        self.assertEqual(b"bye" + b"text\n", client.invoke({"code": "text"}).log)
        self.assertIn("exit code 0", client.invoke({"code": None}).message)

    def test_os_exit_ends_the_process_with_its_code(self) -> None:
        client = self.loaded("import os\ndef main(): print('bye'); os._exit(7)")
        execution = client.invoke()
        self.assert_failed(execution, "function_exited", verdicts.RESOURCES_TEXT)
        self.assertIn("exit code 7", execution.message)
        self.assertEqual(b"bye\n", execution.log)

    def test_an_exit_during_the_import_says_so(self) -> None:
        execution = self.loaded("import os\nos._exit(4)").invoke()
        self.assert_failed(execution, "function_exited")
        self.assertIn("while its module was imported with exit code 4", execution.message)

    def test_a_crash_is_named_by_its_signal(self) -> None:
        client = self.loaded("import ctypes\ndef main(): print('x'); ctypes.string_at(0)")
        execution = client.invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("signal 11 (SIGSEGV)", execution.message)
        self.assertEqual(b"x\n", execution.log)
        self.assert_failed(client.invoke(), "function_crashed")

    def test_a_kernel_kill_for_memory_ends_every_execution_it_hits_with_that_reason(self) -> None:
        client = self.loaded(
            """
            import os, time
            def main():
                open(str(os.getpid()), "w").close()
                time.sleep(60)
            """
        )
        clients = [client, self.connect()]
        for number, one in enumerate(clients):
            one.send_invoke(execution=f"e{number}")
        scratch = pathlib.Path(self.directory, "scratch")
        self.wait_for(lambda: len(list(scratch.iterdir())) == 2, "both executions")
        time.sleep(0.1)
        self.count("oom_kills", 2)
        for path in scratch.iterdir():
            os.kill(int(path.name), signal.SIGKILL)
        for one in clients:
            execution = one.receive_execution()
            self.assert_failed(
                execution,
                "memory_exceeded",
                "Function execution failed because of too much resource consumption",
            )
            self.assertIn("memory_size", execution.message)

    def test_a_kill_without_the_kernels_count_is_a_crash(self) -> None:
        execution = self.loaded("import os\ndef main(): os.kill(os.getpid(), 9)").invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("killed by signal 9", execution.message)

    def test_an_old_count_of_memory_kills_explains_nothing(self) -> None:
        self.count("oom_kills", 5)
        self.assert_failed(
            self.loaded("import os\ndef main(): os.kill(os.getpid(), 9)").invoke(), "function_crashed"
        )

    def test_refused_forks_are_the_reason_of_what_fails_by_them(self) -> None:
        client = self.loaded(
            """
            import time
            def main(how):
                open("../pids_hits", "w").write("3")
                if how == "sleep":
                    time.sleep(60)
                raise RuntimeError("can't start new thread")
            """
        )
        execution = client.invoke({"how": "raise"})
        self.assert_failed(execution, "pids_exceeded", "can't start new thread")
        self.assertIn("can't start new thread", execution.message)
        self.count("pids_hits", 0)
        time.sleep(0.1)
        self.assert_failed(client.invoke({"how": "raise"}), "pids_exceeded")

    def test_refused_forks_are_the_reason_of_a_timeout(self) -> None:
        client = self.loaded(
            "import time\ndef main():\n  open('../pids_hits', 'w').write('3')\n  time.sleep(60)"
        )
        execution = client.invoke(timeout=0.3)
        self.assert_failed(execution, "pids_exceeded", "Function execution timeout.")
        self.assertIn("ran into its timeout", execution.message)

    def test_a_handler_that_cannot_be_confined_runs_no_user_code(self) -> None:
        client = self.start(confine="raise PermissionError(1, 'no')")
        client.load(path=self.write(main="open('ran', 'w')\ndef main(): return 1"))
        self.assert_failed(client.invoke(), "platform_error")
        self.assertEqual([], os.listdir(f"{self.directory}/scratch"))

    def test_confinement_holds_in_every_handler(self) -> None:
        client = self.start(confine="import resource; resource.setrlimit(resource.RLIMIT_CORE, (7, 7))")
        client.load(
            path=self.write(
                main="import resource\ndef main(): return resource.getrlimit(resource.RLIMIT_CORE)"
            )
        )
        self.assertEqual([7, 7], client.invoke().output)

    def test_a_handler_of_another_user_sees_its_own_proc(self) -> None:
        if os.getuid() != 0:
            self.skipTest("needs root to become another user")
        os.chmod(self.directory, 0o755)
        client = self.start(
            confine="os.setgid(4242); os.setuid(4242); "
            "from funcplat.worker import kernel; kernel.set_dumpable(True)"
        )
        text = "import os\ndef main(): return [os.getuid(), len(open('/proc/self/auxv', 'rb').read()) > 0]"
        client.load(path=self.write(main=text))
        for _ in range(2):
            self.assertEqual([4242, True], client.invoke().output)


class LogTest(worker_harness.WorkerTestCase):
    def test_both_streams_and_children_are_captured_in_order(self) -> None:
        client = self.loaded(
            """
            import os, subprocess, sys
            def main():
                print("one")
                print("two", file=sys.stderr)
                subprocess.run(["sh", "-c", "echo three; echo four >&2"])
                os.write(1, b"five\\n")
                sys.stdout.write("six")
            """
        )
        self.assertEqual(b"one\ntwo\nthree\nfour\nfive\nsix", client.invoke().log)

    def test_output_is_bytes(self) -> None:
        client = self.loaded("import sys\ndef main(): sys.stdout.buffer.write(bytes(range(256)))")
        self.assertEqual(bytes(range(256)), client.invoke().log)

    def test_lone_surrogates_can_be_printed(self) -> None:
        self.assertEqual(b"\\ud800\n", self.loaded("def main(): print('\\ud800')").invoke().log)

    def test_output_beyond_the_cap_is_counted_and_dropped(self) -> None:
        client = self.loaded("def main(n): print('x' * n, end='')", max_log=1000)
        execution = client.invoke({"n": 1000})
        self.assertEqual((None, 0, 1000), (execution.reason, execution.dropped, len(execution.log)))
        execution = client.invoke({"n": 1001})
        self.assertEqual(
            ("success", "log_truncated", 1), (execution.status, execution.reason, execution.dropped)
        )
        self.assertEqual(b"x" * 1000, execution.log)

    def test_a_line_of_100_megabytes_costs_neither_memory_nor_much_time(self) -> None:
        client = self.loaded(
            "def main():\n  line = 'x' * 1000000\n  for _ in range(100): print(line, end='')"
        )
        started = time.monotonic()
        execution = client.invoke(timeout=60)
        self.assertEqual(100_000_000, len(execution.log) + execution.dropped)
        self.assertTrue(time.monotonic() - started < 10)
        self.assertTrue(self.peak_memory() < 64 * 1024, "the supervisor kept what it dropped")

    def peak_memory(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    def test_a_print_loop_is_fast_and_complete(self) -> None:
        client = self.loaded("def main():\n  for i in range(100000): print(i)")
        started = time.monotonic()
        log = client.invoke(timeout=60).log
        self.assertEqual(list(range(100000)), [int(line) for line in log.split()])
        self.assertTrue(time.monotonic() - started < 10)

    def test_a_running_execution_shows_its_log(self) -> None:
        client = self.loaded(
            """
            import os, time
            def main():
                print("first", flush=True)
                while not os.path.exists("go"):
                    time.sleep(0.005)
                print("second")
            """
        )
        client.send_invoke(execution="e9")
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/log?execution=e9&offset=0").body == b"first\n", "output")
        self.assertEqual(b"rst\n", other.ask("GET", "/log?execution=e9&offset=2").body)
        self.assertEqual(b"", other.ask("GET", "/log?execution=e9&offset=99").body)
        self.assertEqual(404, other.ask("GET", "/log?execution=e8&offset=0").status)
        self.assertEqual(403, other.ask("GET", "/log?execution=e9&offset=0", x_secret="x").status)
        pathlib.Path(self.directory, "scratch", "go").touch()
        self.assertEqual(b"first\nsecond\n", client.receive_execution().log)
        self.assertEqual(404, other.ask("GET", "/log?execution=e9&offset=0").status)


class LoadTest(worker_harness.WorkerTestCase):
    def test_a_pushed_package_is_unpacked_and_runs(self) -> None:
        client = self.start()
        pushed = worker_harness.package(
            main="import dep.inner\ndef main(): return dep.inner.X", dep____init__="", dep__inner="X = 5"
        )
        self.assertEqual(200, client.load(pushed).status)
        self.assertEqual(5, client.invoke().output)

    def test_a_package_of_many_megabytes_goes_through_a_file(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("main.py", "def main(): return len(open(__file__[:-7] + 'big', 'rb').read())")
            archive.writestr("big", os.urandom(20_000_000))
        client = self.start()
        self.assertEqual(200, client.load(buffer.getvalue()).status)
        self.assertEqual(20_000_000, client.invoke().output)
        self.assertEqual(["code"], os.listdir(f"{self.directory}/pushed"))

    def test_a_compiled_extension_can_be_imported(self) -> None:
        import _queue  # any extension module of this interpreter that is a file

        if not hasattr(_queue, "__file__"):
            self.skipTest("this interpreter has its extension modules built in")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.write(_queue.__file__, "_queue" + _queue.__file__.partition("_queue")[2])
            archive.writestr("main.py", "import _queue\ndef main(): return _queue.__file__")
        client = self.start()
        client.load(buffer.getvalue())
        self.assertTrue(client.invoke().output.startswith(f"{self.directory}/pushed/code/"))

    def test_packages_that_would_leave_their_directory_are_refused(self) -> None:
        client = self.start()
        for name in ("../evil", "/evil", "a/../../evil", "a\\..\\evil"):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("main.py", "")
                archive.writestr(name, "x")
            answer = client.load(buffer.getvalue())
            self.assertEqual(400, answer.status, name)
            self.assertIn("unsafe name", answer.json()["message"])
            self.assertEqual([], os.listdir(f"{self.directory}/pushed/code"))

    def test_a_package_with_a_link_is_refused(self) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            link = zipfile.ZipInfo("link")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
        self.assertEqual(400, self.start().load(buffer.getvalue()).status)

    def test_a_load_that_failed_may_be_repeated(self) -> None:
        client = self.start()
        self.assertEqual(400, client.load(b"not a zip file").status)
        self.assertEqual(400, client.load().status)
        self.assertEqual(400, client.load(path="/nonexistent").status)
        self.assertEqual("blank", client.ask("GET", "/ready").json()["state"])
        self.assertEqual(200, client.load(worker_harness.package(main=HELLO)).status)
        self.assertEqual("success", client.invoke().status)

    def test_fields_that_cannot_be_used_are_named(self) -> None:
        client = self.start()
        path = self.write(main=HELLO)
        for name, value in (
            ("entry", "main"),
            ("secret", ""),
            ("concurrency", 0),
            ("import_timeout", "soon"),
            ("max_result", True),
            ("environment", {"A=B": "x"}),
            ("environment", {"A": 1}),
            ("path", 5),
        ):
            answer = client.load(**{"path": path, name: value})
            self.assertEqual(400, answer.status)
            self.assertIn(repr(name), answer.json()["message"])

    def test_a_second_load_is_refused(self) -> None:
        client = self.loaded(HELLO)
        self.assertEqual(409, client.load(path=self.write(main=HELLO)).status)
        self.assertEqual(409, client.load(b"x" * 3_000_000).status)
        self.assertEqual("success", client.invoke().status)

    def test_an_upload_that_breaks_off_leaves_a_blank_worker(self) -> None:
        client = self.start()
        broken = self.connect()
        broken.socket.sendall(b"POST /load HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 2_000_000)
        self.wait_for(lambda: client.load(b"x" * 100_000).status == 409, "the upload")
        broken.close()
        self.wait_for(lambda: client.load(path=self.write(main=HELLO)).status == 200, "a load")


class ProtocolTest(worker_harness.WorkerTestCase):
    def test_readiness_tells_the_state(self) -> None:
        client = self.start()
        ready = client.ask("GET", "/ready")
        self.assertEqual({"state": "blank", "busy": 0, "concurrency": 3}, ready.json())
        client.load(path=self.write(main="import time\ndef main(): time.sleep(60)"), concurrency=2)
        client.send_invoke(timeout=20)
        other = self.connect()
        self.wait_for(
            lambda: other.ask("GET", "/ready").json() == {"state": "loaded", "busy": 1, "concurrency": 2},
            "a busy worker",
        )

    def test_one_call_too_many_is_refused_before_any_work(self) -> None:
        client = self.loaded("import time\ndef main(n): print('ran'); time.sleep(n)", concurrency=1)
        client.send_invoke({"n": 0.3})
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the first call")
        for body in (b"null", b'{"n": "' + b"x" * 300_000 + b'"}'):
            answer = other.ask("POST", "/invoke", body, x_execution="e2", x_timeout="1")
            self.assertEqual(429, answer.status)
        self.assertEqual(b"ran\n", client.receive_execution().log)
        self.assertEqual("success", other.invoke({"n": 0}).status)

    def test_a_draining_worker_ends_what_runs_and_takes_nothing(self) -> None:
        client = self.loaded("import time\ndef main(): time.sleep(0.3); return 1")
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        self.assertEqual(403, other.ask("POST", "/drain", x_secret="no").status)
        self.assertEqual(200, other.ask("POST", "/drain").status)
        self.assertEqual(200, other.ask("POST", "/drain").status)
        self.assertEqual("draining", other.ask("GET", "/ready").json()["state"])
        self.assertEqual(503, other.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1").status)
        self.assertEqual(1, client.receive_execution().output)

    def test_calls_need_the_secret(self) -> None:
        client = self.start()
        self.assertEqual(409, client.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1").status)
        client.load(path=self.write(main=HELLO))
        for secret in ("", "wrong", worker_harness.SECRET + "x"):
            answer = client.ask("POST", "/invoke", b"null", x_execution="e", x_timeout="1", x_secret=secret)
            self.assertEqual(403, answer.status)

    def test_a_call_needs_its_headers(self) -> None:
        client = self.loaded(HELLO)
        for execution, timeout in (
            ("", "1"),
            ("a b", "1"),
            ("e" * 65, "1"),
            ("e", ""),
            ("e", "0"),
            ("e", "nan"),
        ):
            answer = client.ask("POST", "/invoke", b"null", x_execution=execution, x_timeout=timeout)
            self.assertEqual(400, answer.status, (execution, timeout))
        self.assertEqual("success", client.invoke().status)

    def test_requests_that_break_the_rules_get_400_and_are_cut_off(self) -> None:
        client = self.loaded(HELLO)
        for data in (
            b"\r\n\r\n",
            b"GET /ready HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
            b"PUT /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            b"GET  /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 1_0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nexpect: 100-continue\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n folded\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length : 0\r\n\r\n",
            b"GET /ready HTTP/1.1\ncontent-length: 0\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\nx: \xc3\xa9\r\n\r\n",
            b"GET /ready HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
            b"GET /ready HTTP/1.1\r\ncontent-length: 9\r\n\r\nx",
            b"GET /ready HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET /ready HTTP/1.1\r\n",
            b"GET /ready HTTP/1.1\r\nx: " + b"y" * 9000,
        ):
            broken = self.connect()
            broken.socket.sendall(data)
            self.assertEqual(400, broken.receive().status, data)
            self.assertRaises((EOFError, ConnectionError), broken.receive)
        self.assert_serves(client)

    def test_paths_and_methods_that_do_not_exist_are_said_so(self) -> None:
        client = self.start()
        self.assertEqual(404, client.ask("GET", "/").status)
        self.assertEqual(404, client.ask("GET", "/ready/").status)
        self.assertEqual(405, client.ask("POST", "/ready").status)
        self.assertEqual(405, client.ask("GET", "/invoke").status)

    def test_bodies_over_the_limit_are_refused_unread(self) -> None:
        client = self.loaded(HELLO)
        for target, length in (("/invoke", 16 * 2**20 + 1), ("/load", 66 * 2**20)):
            other = self.connect()
            other.socket.sendall(
                f"POST {target} HTTP/1.1\r\nx-secret: {worker_harness.SECRET}\r\n"
                f"content-length: {length}\r\n\r\n".encode()
            )
            self.assertEqual(413, other.receive().status)
        self.assert_serves(client)

    def test_a_request_may_come_byte_by_byte(self) -> None:
        client = self.loaded(HELLO)
        head = "POST /invoke HTTP/1.1\r\nx-execution: e\r\nx-timeout: 5\r\n"
        head += f"x-secret: {worker_harness.SECRET}\r\n"
        for byte in head.encode() + b'content-length: 13\r\n\r\n{"name": "Q"}':
            client.socket.sendall(bytes((byte,)))
            time.sleep(0.0005)
        self.assertEqual({"hello": "Q"}, client.receive_execution().output)

    def test_bytes_during_a_call_cut_the_client_off_but_the_function_ends(self) -> None:
        client = self.loaded("import time\ndef main(): time.sleep(0.2); open('done', 'w')")
        client.send_invoke()
        other = self.connect()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        client.socket.sendall(b"x")
        self.assertRaises((EOFError, ConnectionError), client.receive)
        self.wait_for(pathlib.Path(self.directory, "scratch", "done").exists, "the end of the function")
        self.assertEqual("success", self.connect().invoke().status)

    def test_a_client_that_goes_away_does_not_end_the_function(self) -> None:
        client = self.loaded("import time\ndef main(): time.sleep(0.2); open('done', 'w')")
        other = self.connect()
        client.send_invoke()
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 1, "the call")
        client.close()
        self.wait_for(pathlib.Path(self.directory, "scratch", "done").exists, "the end of the function")
        self.wait_for(lambda: other.ask("GET", "/ready").json()["busy"] == 0, "an idle worker")
        self.assertEqual("success", other.invoke().status)

    def test_a_client_that_reads_slowly_gets_all(self) -> None:
        client = self.loaded("def main(): return 'x' * 5000000", max_result=6_000_000)
        client.send_invoke()
        time.sleep(0.3)
        self.assert_serves(self.connect())
        self.assertEqual(5_000_000, len(client.receive_execution().output))
        self.assertEqual("success", client.invoke().status)

    def test_strangers_connections_do_not_keep_the_platform_out(self) -> None:
        client = self.loaded(HELLO)
        client.invoke()
        for _ in range(600):
            self.connect()
        self.assertEqual("success", self.connect().invoke().status)
        self.assertEqual("success", client.invoke().status)


class EndTest(worker_harness.WorkerTestCase):
    SLEEPER = """
        import os, subprocess, time
        def main():
            subprocess.Popen(["sleep", "61.5"], start_new_session=True)
            open("up", "w")
            time.sleep(60)
        """

    def test_sigterm_kills_everything_and_exits_with_0(self) -> None:
        self._end(lambda: self.process.send_signal(signal.SIGTERM))

    def test_the_end_of_the_lifeline_is_the_workers_end(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self._end(lambda: os.close(writer), lifeline=reader)

    def _end(self, end, lifeline=None) -> None:
        client = self.start(lifeline=lifeline)
        client.load(path=self.write(main=self.SLEEPER))
        client.send_invoke()
        self.wait_for(pathlib.Path(self.directory, "scratch", "up").exists, "the function")
        (handler,) = self.handlers()
        (sleeper,) = worker_harness.children(handler)
        end()
        self.assertEqual(0, self.process.wait(worker_harness.PATIENCE))
        self.assert_gone(handler)
        self.assert_gone(sleeper)
        self.assertRaises((EOFError, ConnectionError), client.receive)


class StandaloneTest(testtools.TestCase):
    def test_it_runs_isolated_from_its_directory(self) -> None:
        import subprocess
        import sys

        answer = subprocess.run(
            [sys.executable, "-I", "-S", str(worker_harness.WORKER), "--help"],
            capture_output=True,
            check=True,
        )
        self.assertIn(b"--listen", answer.stdout)

    def test_it_imports_nothing_but_the_standard_library(self) -> None:
        import subprocess
        import sys

        code = (
            f"import sys, json; sys.path.insert(0, {str(worker_harness.WORKER.parents[1])!r});"
            "import funcplat.worker.supervisor, funcplat.worker.preload as p;"
            "[__import__(m) for m in p.MODULES];"
            "print(json.dumps([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names]))"
        )
        answer = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
        foreign = [name for name in json.loads(answer.stdout) if not name.startswith("funcplat.worker")]
        self.assertEqual(["__main__", "funcplat"], sorted({*foreign, "__main__"}))

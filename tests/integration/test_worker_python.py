"""What the Python worker is for functions in Python, beside what its contract says."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile

import testtools

from funcplat.testing import workerclient
from funcplat.testing.worker_failures import ENDED
from tests.integration import worker_harness

HELLO = """
def main(name="World"):
    return {"hello": name}
"""


class FunctionTest(worker_harness.PythonWorker):
    def test_a_function_is_called_with_its_input_as_keywords(self) -> None:
        client = self.run_module(HELLO)
        execution = client.invoke({"name": "Qinling"})
        self.assertEqual(("success", {"hello": "Qinling"}), (execution.status, execution.output))
        self.assertEqual({"hello": "World"}, client.invoke(None).output, "null means no arguments")

    def test_an_input_that_is_no_object_is_the_first_positional_argument(self) -> None:
        client = self.run_module("def main(text, times=1): return text * times")
        self.assertEqual("abab", client.invoke({"__function_input": "ab", "times": 2}).output)

    def test_an_entry_may_be_deep_in_a_package(self) -> None:
        files = {
            "a/__init__.py": "",
            "a/b.py": "import a.c\ndef run(): return [__name__, a.c.X]",
            "a/c.py": "X = 5",
        }
        client = self.run_files(files, entry="a.b.run")
        self.assertEqual(["a.b", 5], client.invoke().output)

    def test_context_is_passed_where_the_function_takes_it(self) -> None:
        labels = {"function_id": "f-1", "function_version": 0}
        client = self.run_module("def main(context, **rest): return [context, rest]", labels=labels)
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
        self.assertIn("context", self.run_module("def main(**kw): return kw").invoke().output)

    def test_context_is_not_forced_upon_a_function_without_it(self) -> None:
        self.assertEqual([], self.run_module("def main(*args): return args").invoke().output)

    def test_a_coroutine_function_is_awaited(self) -> None:
        client = self.run_module("import asyncio\nasync def main(n):\n  await asyncio.sleep(0)\n  return n")
        self.assertEqual(5, client.invoke({"n": 5}).output)

    def test_a_decorated_coroutine_is_awaited(self) -> None:
        client = self.run_module("async def inner(): return 1\ndef main(): return inner()")
        self.assertEqual(1, client.invoke().output)

    def test_huge_integers_can_be_printed(self) -> None:
        client = self.run_module("def main(): return len(str(10 ** 50000))")
        self.assertEqual(50001, client.invoke().output)

    def test_the_platform_cannot_be_imported_or_seen(self) -> None:
        client = self.run_module(
            """
            import os, sys
            def main():
                try:
                    import funcplat
                except ImportError:
                    names = [*sys.modules, *os.environ]
                    return [name for name in names if "funcplat" in name.lower()] + sys.path[:1]
            """
        )
        self.assertEqual([self.path], client.invoke().output)

    def test_a_module_of_the_package_may_be_called_like_one_of_the_library(self) -> None:
        main = "import json, code\ndef main(): return [json.X, code.X]"
        client = self.run_files({"main.py": main, "json.py": "X=1", "code.py": "X=2"})
        self.assertEqual([1, 2], client.invoke().output)

    def test_the_supervisors_objects_cannot_be_found(self) -> None:
        client = self.run_module(
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
        client = self.run_module(
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
        self.assertEqual([], client.invoke({"half": workerclient.SECRET[:-5]}, timeout=60).output)

    def test_no_descriptor_is_open_but_the_standard_ones_and_three_to_the_supervisor(self) -> None:
        client = self.run_module(
            "import os\ndef main(): return sorted(map(int, os.listdir('/proc/self/fd')))"
        )
        execution = client.invoke()
        # The channel, the timer of its calls and its output; 3 is the directory that is listed.
        self.assertEqual([0, 1, 2, 500, 501, 502], [fd for fd in execution.output if fd != 3])


class FailureTest(worker_harness.PythonWorker):
    def test_an_exception_is_the_result_and_its_traceback_is_in_the_log(self) -> None:
        client = self.run_module("def f(): raise ValueError('bad thing')\ndef main(): f()")
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
            self.run_module("def main(): raise KeyError()").invoke(), "function_raised", "KeyError"
        )

    def test_arguments_that_do_not_fit_are_named(self) -> None:
        client = self.run_module("def main(a, *, b=1): return a")
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
        execution = self.run_module("def main(): return len(5)").invoke()
        self.assert_failed(execution, "function_raised", "object of type 'int' has no len()")

    def test_a_module_that_misses_a_dependency_failed_to_be_imported(self) -> None:
        execution = self.run_module("import no_such_dependency").invoke()
        self.assert_failed(execution, "import_failed", "No module named 'no_such_dependency'")

    def test_an_import_that_raises_is_tried_again_by_a_later_call(self) -> None:
        client = self.run_module(
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
        (self.scratch / "once").rmdir()
        (self.scratch / "flag").touch()
        self.assertEqual("at last", client.invoke().output)

    def test_results_that_are_not_json_say_why(self) -> None:
        client = self.run_module(
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

    def test_a_memory_error_is_the_memory_limit(self) -> None:
        self.assert_failed(
            self.run_module("def main(): raise MemoryError").invoke(),
            "memory_exceeded",
            ENDED,
        )

    def test_sys_exit_ends_the_process_with_its_code(self) -> None:
        client = self.run_module("import sys\ndef main(code): print('bye', end=''); sys.exit(code)")
        execution = client.invoke({"code": 3})
        self.assert_failed(execution, "function_exited", ENDED)
        self.assertIn("exit code 3", execution.message)
        self.assertEqual(b"bye", execution.log)
        self.assertEqual(b"bye" + b"text\n", client.invoke({"code": "text"}).log)
        self.assertIn("exit code 0", client.invoke({"code": None}).message)

    def test_os_exit_ends_the_process_with_its_code(self) -> None:
        client = self.run_module("import os\ndef main(): print('bye'); os._exit(7)")
        execution = client.invoke()
        self.assert_failed(execution, "function_exited", ENDED)
        self.assertIn("exit code 7", execution.message)
        self.assertEqual(b"bye\n", execution.log)

    def test_a_crash_is_named_by_its_signal(self) -> None:
        client = self.run_module("import ctypes\ndef main(): print('x'); ctypes.string_at(0)")
        execution = client.invoke()
        self.assert_failed(execution, "function_crashed")
        self.assertIn("signal 11 (SIGSEGV)", execution.message)
        self.assertEqual(b"x\n", execution.log)
        self.assert_failed(client.invoke(), "function_crashed")

    def test_a_handler_that_cannot_be_confined_runs_no_user_code(self) -> None:
        self.confine = "raise PermissionError(1, 'no')"
        client = self.run_module("open('ran', 'w')\ndef main(): return 1")
        self.assert_failed(client.invoke(), "platform_error")
        self.assertEqual([], os.listdir(self.scratch))

    def test_confinement_holds_in_every_handler(self) -> None:
        self.confine = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (7, 7))"
        client = self.run_module(
            "import resource\ndef main(): return resource.getrlimit(resource.RLIMIT_CORE)"
        )
        self.assertEqual([7, 7], client.invoke().output)

    def test_a_handler_of_another_user_sees_its_own_proc(self) -> None:
        user = self.new_user()
        become = f"os.setgid({user}); os.setuid({user})"
        self.confine = f"{become}; from funcplat.worker import kernel; kernel.set_dumpable(True)"
        text = "import os\ndef main(): return [os.getuid(), len(open('/proc/self/auxv', 'rb').read()) > 0]"
        client = self.run_module(text)
        for _ in range(2):
            self.assertEqual([user, True], client.invoke().output)


class LogTest(worker_harness.PythonWorker):
    def test_lone_surrogates_can_be_printed(self) -> None:
        self.assertEqual(b"\\ud800\n", self.run_module("def main(): print('\\ud800')").invoke().log)


class LoadTest(worker_harness.PythonWorker):
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


class StandaloneTest(testtools.TestCase):
    def test_it_imports_nothing_but_the_standard_library(self) -> None:
        code = (
            f"import sys, json; sys.path.insert(0, {str(worker_harness.WORKER.parents[1])!r});"
            "import funcplat.worker.supervisor, funcplat.worker.preload as p;"
            "[__import__(m) for m in p.MODULES];"
            "print(json.dumps([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names]))"
        )
        answer = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True)
        foreign = [name for name in json.loads(answer.stdout) if not name.startswith("funcplat.worker")]
        self.assertEqual(["__main__", "funcplat"], sorted({*foreign, "__main__"}))

"""Functions in Python that misbehave in ways of their own: the worker goes on, and says what happened."""

from __future__ import annotations

import time

from funcplat.testing import workerclient
from tests.integration import worker_harness

CHANNEL = """
    import contextlib, os, socket, stat, struct, threading, time

    def find():
        for fd in range(3, 1024):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    return fd

    def send(data, *more):
        os.write(find(), data if isinstance(data, bytes) else struct.pack("!IQBBBdI", data, *more))
    """


class ProcessTest(worker_harness.PythonWorker):
    def test_a_child_started_by_a_thread_is_killed(self) -> None:
        client = self.run_module(
            """
            import subprocess, threading
            def main():
                pids = []
                stop = threading.Event()
                def run():
                    pids.append(subprocess.Popen(["sleep", "60"]).pid)
                    stop.wait()
                threading.Thread(target=run, daemon=True).start()
                while not pids:
                    pass
                return pids[0]
            """
        )
        execution = client.invoke()
        self.assert_ended(execution, "success", "processes_killed")
        self.assert_dead(execution.output)

    def test_a_child_that_ended_and_was_not_waited_for_is_no_matter(self) -> None:
        client = self.run_module(
            """
            import os, time
            def main():
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                while open(f"/proc/{pid}/stat").read().split()[2] != "Z":
                    time.sleep(0.001)
                return os.getpid()
            """
        )
        first, second = client.invoke(), client.invoke()
        self.assert_ended(first, "success", None)
        self.assertEqual(first.output, second.output)

    def test_a_fork_that_returns_twice_answers_once(self) -> None:
        client = self.run_module(
            """
            import os, time
            def main(n):
                first = os.fork()
                if (first == 0) == (n % 2 == 0):
                    time.sleep(0.1)
                return [n, first != 0]
            """
        )
        for n in range(4):
            execution = client.invoke({"n": n})
            self.assertEqual(("success", [n, True]), (execution.status, execution.output))
        self.assert_answers(client)

    def test_an_import_that_forks_is_ready_once(self) -> None:
        client = self.run_module("import os\npid = os.fork()\ndef main(): return pid")
        self.assertNotEqual(0, client.invoke().output)

    def test_a_fork_that_raises_twice_answers_once(self) -> None:
        client = self.run_module(
            "import os\ndef main():\n  if not os.fork(): raise SystemExit(3)\n  os.wait()\n  return 1"
        )
        for _ in range(3):
            self.assert_ended(client.invoke(), "success", None)

    def _run_limited(self, text: str, processes: int) -> workerclient.WorkerClient:
        """A worker whose functions are a user of their own with so many processes."""
        user = self.new_user()
        self.confine = (
            "import resource; "
            f"resource.setrlimit(resource.RLIMIT_NPROC, ({processes}, {processes})); "
            f"os.setgid({user}); os.setuid({user})"
        )
        return self.run_module(text)

    def test_a_fork_bomb_that_flees_into_sessions_is_killed(self) -> None:
        client = self._run_limited(
            """
            import os, signal
            def main():
                for number in range(1, 32):
                    if number not in (9, 19):
                        signal.signal(number, signal.SIG_IGN)
                while True:
                    try:
                        if os.fork() == 0:
                            os.setsid()
                        elif os.fork() == 0:
                            os._exit(0)
                    except OSError:
                        pass
            """,
            100,
        )
        self._assert_bomb_ends(client)

    def test_a_fork_bomb_that_outlives_its_handler_is_killed(self) -> None:
        client = self._run_limited(
            """
            import os
            def main(calm=False):
                if calm:
                    return
                if os.fork():
                    os._exit(5)
                while True:
                    try:
                        if os.fork() == 0:
                            os.setsid()
                        else:
                            os._exit(0) if os.getpid() % 7 == 0 else None
                    except OSError:
                        pass
            """,
            100,
        )
        self.assert_ended(client.invoke(), "failed", "function_exited")
        self.assert_ended(client.invoke({"calm": True}), "success", None)
        self.wait_for(lambda: len(self.handlers()) == 1, "the end of the bomb")

    def _assert_bomb_ends(self, client: workerclient.WorkerClient) -> None:
        started = time.monotonic()
        self.assert_ended(client.invoke(timeout=0.5), "failed", "timeout")
        self.wait_for(lambda: self.handlers() == [], "the end of the bomb")
        self.assertTrue(time.monotonic() - started < 8)
        self.assert_answers(client)

    def test_a_handler_traced_by_its_sibling_still_ends_in_time(self) -> None:
        client = self.run_module(
            """
            import ctypes, os, time
            def main(trace):
                if not trace:
                    with open("pid.new", "w") as file:
                        file.write(str(os.getpid()))
                    os.rename("pid.new", "pid")
                else:
                    assert ctypes.CDLL(None).ptrace(16, int(open("pid").read()), 0, 0) == 0
                    open("traced", "w")
                time.sleep(60)
            """
        )
        victim = self.connect()
        victim.send_invoke({"trace": False}, timeout=1)
        self.wait_for((self.scratch / "pid").exists, "the victim")
        client.send_invoke({"trace": True}, timeout=1.5)
        self.wait_for((self.scratch / "traced").exists, "the tracer")
        self.assert_ended(victim.receive_execution(), "failed", "timeout")
        self.assert_ended(client.receive_execution(), "failed", "timeout")
        self.wait_for(lambda: self.handlers() == [], "an empty worker")

    def test_the_supervisors_memory_is_closed_to_functions(self) -> None:
        client = self._run_limited(
            """
            import ctypes, os
            def main():
                parent, refused = os.getppid(), []
                for name in ("mem", "environ", "maps", "fd"):
                    path = f"/proc/{parent}/{name}"
                    try:
                        os.listdir(path) if name == "fd" else open(path, "rb").read(1)
                    except PermissionError:
                        refused.append(name)
                for number in (9, 15, 19):
                    try:
                        os.kill(parent, number)
                    except PermissionError:
                        refused.append(number)
                return refused + [ctypes.CDLL(None).ptrace(16, parent, 0, 0)]
            """,
            100,
        )
        self.assertEqual(["mem", "environ", "maps", "fd", 9, 15, 19, -1], client.invoke().output)


class ChannelTest(worker_harness.PythonWorker):
    def _loaded_with_channel(self, action: str) -> workerclient.WorkerClient:
        lines = ["from channel import *", "def main(calm=False):", "    if calm: return os.getpid()"]
        main = "\n".join([*lines, *(f"    {line}" for line in action.split("; "))])
        return self.run_files({"main.py": main, "channel.py": CHANNEL})

    def _broken_by(self, action: str) -> None:
        client = self._loaded_with_channel(action)
        execution = client.invoke(timeout=3)
        self.assert_ended(execution, "failed", "function_crashed")
        self.assert_ended(client.invoke({"calm": True}), "success", None)
        self.assert_answers(client)

    def test_garbage_on_the_channel(self) -> None:
        self._broken_by("send(b'garbage' * 100); time.sleep(60)")

    def test_an_endless_report(self) -> None:
        self._broken_by("send(b'\\xff' * 4 + bytes(40)); exec('while True: send(bytes(100000))')")

    def test_a_report_with_another_sequence(self) -> None:
        self._broken_by("send(23, 99, 1, 0, 0, 0.0, 0); time.sleep(60)")

    def test_a_report_whose_result_is_longer_than_itself(self) -> None:
        self._broken_by("send(23, 1, 1, 0, 0, 0.0, 9); time.sleep(60)")

    def test_a_report_shorter_than_its_fixed_part(self) -> None:
        self._broken_by("send(3, 1, 1, 0, 0, 0.0, 0); time.sleep(60)")

    def test_two_reports_at_once(self) -> None:
        self._broken_by("send(struct.pack('!IQBBBdI', 23, 1, 1, 0, 0, 0.0, 0) * 2); time.sleep(60)")

    def test_a_second_announcement_of_readiness(self) -> None:
        self._broken_by("send(23, 0, 0, 0, 0, 0.0, 0); time.sleep(60)")

    def test_a_closed_channel(self) -> None:
        self._broken_by("os.close(find()); time.sleep(60)")

    def test_a_closed_channel_before_a_return(self) -> None:
        self._broken_by("os.close(find())")

    def test_a_channel_half_shut(self) -> None:
        self._broken_by("socket.socket(fileno=find()).shutdown(socket.SHUT_WR); time.sleep(60)")

    def test_a_forged_report_harms_only_its_own_execution(self) -> None:
        client = self._loaded_with_channel("send(23, 1, 1, 255, 255, float('nan'), 0); time.sleep(60)")
        client.send_invoke(timeout=3)
        forged = client.receive()
        self.assertEqual(("success", "0"), (forged.headers["x-status"], forged.headers["x-result-length"]))
        self.assertTrue(0 <= float(forged.headers["x-duration"]) < 3)
        self.assert_ended(client.invoke({"calm": True}), "success", None)

    def test_an_odd_reason_and_message_are_made_harmless(self) -> None:
        text = "x\r\nx-status: success\r\n\u20ac%".encode() + b"\xff"
        client = self._loaded_with_channel(
            f"send(struct.pack('!IQBBBdI', {26 + len(text)}, 1, 2, 200, 0, -5.0, 3) + b'\"1\"' + {text!r}); "
            "time.sleep(60)"
        )
        execution = client.invoke()
        self.assert_ended(execution, "failed", "function_raised")
        self.assertEqual("x\r\nx-status: success\r\n\u20ac%\ufffd", execution.message)
        self.assert_answers(client)

    def test_a_message_of_nonsense_is_cut(self) -> None:
        client = self._loaded_with_channel(
            "send(struct.pack('!IQBBBdI', 26 + 4000, 1, 2, 1, 0, 0.0, 3) + b'\"1\"' + bytes([255]) * 4000); "
            "time.sleep(60)"
        )
        execution = client.invoke()
        self.assert_ended(execution, "failed", "function_raised")
        self.assertTrue(600 < len(execution.message) < 800)

    def test_reports_while_idle_end_the_handler_only(self) -> None:
        client = self._loaded_with_channel(
            "threading.Timer(0.1, send, (23, 2, 1, 0, 0, 0.0, 0)).start(); return os.getpid()"
        )
        pid = client.invoke().output
        self.assert_dead(pid)
        self.assertNotEqual(pid, client.invoke({"calm": True}).output)

    def test_a_handler_that_dies_while_idle_is_replaced(self) -> None:
        client = self.run_module(
            """
            import os, threading, time
            def main(calm=False):
                if not calm:
                    threading.Timer(0.1, lambda: os._exit(3)).start()
                return os.getpid()
            """
        )
        pid = client.invoke().output
        self.assert_dead(pid)
        execution = client.invoke({"calm": True})
        self.assert_ended(execution, "success", None)

    def test_closing_every_descriptor_is_survived(self) -> None:
        client = self.run_module(
            "import os\ndef main(close):\n  if close: os.closerange(0, 65536)\n  return 1"
        )
        self.assert_ended(client.invoke({"close": True}, timeout=5), "failed", "function_crashed")
        self.assert_ended(client.invoke({"close": False}), "success", None)

    def test_closing_low_descriptors_is_survived(self) -> None:
        client = self.run_module("import os\ndef main(close):\n  if close: os.closerange(0, 256)\n  return 1")
        self.assertEqual(1, client.invoke({"close": True}).output)
        self.assertEqual(1, client.invoke({"close": False}).output)


class OutputTest(worker_harness.PythonWorker):
    def test_a_closed_stdout_harms_only_its_own_execution(self) -> None:
        client = self.run_module(
            "import sys\ndef main(close):\n  print('x')\n  if close: sys.stdout.close()\n  return 1"
        )
        self.assertEqual((1, b"x\n"), self._output_and_log(client.invoke({"close": True})))
        self.assertEqual((1, b"x\n"), self._output_and_log(client.invoke({"close": False})))

    def test_a_replaced_stdout_harms_only_its_own_execution(self) -> None:
        client = self.run_module(
            "import io, sys\ndef main(r):\n  if r: sys.stdout = io.StringIO()\n  print('x')"
        )
        self.assertEqual(b"", client.invoke({"r": True}).log)
        self.assertEqual(b"x\n", client.invoke({"r": False}).log)

    def test_a_stdout_that_is_nonsense_harms_only_its_own_execution(self) -> None:
        client = self.run_module(
            "import sys\ndef main(r):\n  if r: sys.stdout = sys.stderr = None\n  return 1"
        )
        self.assert_ended(client.invoke({"r": True}), "success", None)
        self.assert_ended(client.invoke({"r": False}), "success", None)

    def _output_and_log(self, execution: workerclient.Execution) -> tuple[object, bytes]:
        return execution.output, execution.log

    def test_a_function_that_reads_its_own_log_does_not_block_the_supervisor(self) -> None:
        client = self.run_module(
            """
            import threading
            def thief():
                with open("/proc/self/fd/1", "rb", buffering=0) as pipe:
                    while True:
                        pipe.read(100)
            def main(steal):
                if steal:
                    threading.Thread(target=thief, daemon=True).start()
                for number in range(20000):
                    print(number)
                return 1
            """
        )
        for steal in (True, False, False, False):
            self.assertEqual(1, client.invoke({"steal": steal}).output)
        self.assert_answers(client)

    def test_stdin_is_empty(self) -> None:
        client = self.run_module("import sys\ndef main(): return sys.stdin.read()")
        self.assertEqual("", client.invoke().output)


class ObjectTest(worker_harness.PythonWorker):
    def test_an_exception_whose_text_raises(self) -> None:
        client = self.run_module(
            """
            class Odd(Exception):
                def __str__(self): raise SystemExit(5)
                __repr__ = __str__
            def main(): raise Odd
            """
        )
        execution = client.invoke()
        self.assert_ended(execution, "failed", "function_raised")
        self.assertEqual("Odd", execution.output)

    def test_a_result_whose_serialisation_raises(self) -> None:
        client = self.run_module(
            """
            class Odd(dict):
                def items(self): raise KeyboardInterrupt
                def __iter__(self): raise SystemExit(3)
            def main(): return Odd(a=1)
            """
        )
        self.assert_ended(client.invoke(), "failed", "result_not_json")

    def test_an_exception_that_is_a_base_exception(self) -> None:
        client = self.run_module("def main(which): raise [KeyboardInterrupt, GeneratorExit][which]")
        for which in range(2):
            self.assert_ended(client.invoke({"which": which}), "failed", "function_raised")

    def test_endless_recursion(self) -> None:
        client = self.run_module("def main(): return main()")
        execution = client.invoke()
        self.assert_ended(execution, "failed", "function_raised")
        self.assertIn(b"RecursionError", execution.log)

    def test_a_function_that_breaks_the_modules_of_the_library(self) -> None:
        client = self.run_module(
            """
            import json, os, sys, time, socket
            def main():
                for module in (json, os, time, socket):
                    vars(module).clear()
                sys.modules.clear()
                return 1
            """
        )
        self.assertEqual(200, client.ask("GET", "/ready").status)
        client.invoke(timeout=2)
        self.assert_answers(client)

    def test_a_signal_handler_that_raises_between_calls_ends_the_handler_only(self) -> None:
        client = self.run_module(
            """
            import os, signal
            def alarm(number, frame):
                raise ValueError("alarm")
            def main(n):
                signal.signal(signal.SIGALRM, alarm)
                signal.setitimer(0, n)
                return os.getpid()
            """
        )
        pid = client.invoke({"n": 0.1}).output
        self.assert_dead(pid)
        self.assert_ended(client.invoke({"n": 0}), "success", None)

    def test_an_alarm_left_behind_ends_the_handler_only(self) -> None:
        client = self.run_module("import os, signal\ndef main(n): signal.setitimer(0, n); return os.getpid()")
        pid = client.invoke({"n": 0.1}).output
        self.assert_dead(pid)
        self.assert_ended(client.invoke({"n": 0}), "success", None)

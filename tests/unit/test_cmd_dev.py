"""``funcplat dev`` as a process of its own: calls, reloading, the terminal."""

import contextlib
import http.client
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import time
import urllib.parse

import fixtures
import testtools

from funcplat.cmd import dev, failures, sources

PATIENCE = 30.0


class DevCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def write(self, source, name="main.py"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    def start(self, *words, path=None):
        """Run dev on a terminal of its own; returns when it listens."""
        self.terminal, inside = pty.openpty()
        self.addCleanup(os.close, self.terminal)
        command = [sys.executable, "-m", "funcplat.cmd", "dev", str(path or self.folder), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *words], stdin=inside, stdout=inside, stderr=inside, start_new_session=True
        )
        os.close(inside)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.shown = ""
        url = self.expect(r"http://127\.0\.0\.1:(\d+)/")
        self.port = int(url[1])

    def expect(self, pattern):
        """Wait until the terminal shows ``pattern``; what came before is consumed."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.fail(f"{pattern!r} did not come, but: {self.shown!r}")
            with contextlib.suppress(OSError):
                self.shown += os.read(self.terminal, 65536).decode()
        self.shown = self.shown[found.end() :]
        return found

    def type(self, text):
        os.write(self.terminal, text.encode())

    def request(self, method="POST", body=None, path="/", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        return connection

    def call(self, *args, **kwargs):
        with contextlib.closing(self.request(*args, **kwargs)) as connection:
            response = connection.getresponse()
            return response.status, response.read().decode()

    def result(self, *args, **kwargs):
        status, text = self.call(*args, **kwargs)
        self.assertEqual(200, status, text)
        return json.loads(text)


class PlaceTests(testtools.TestCase):
    def test_modules_of_nodejs_are_refused_with_what_runs_them(self):
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        index = folder / "index.js"
        index.touch()
        for path in (folder, index):
            with testtools.ExpectedException(failures.UsageFailure, f".*node -e 'import..{index}.*"):
                dev._place(path, None)
        (folder / "main.py").touch()
        self.assertEqual((folder.resolve(), "main.main"), dev._place(folder, None))


class CallTests(DevCase):
    def test_a_post_gives_keyword_arguments_and_shows_the_log(self):
        self.write("def main(name, times=1):\n    print('working on', name)\n    return [name] * times\n")
        self.start()
        self.assertEqual(["Ann", "Ann"], self.result(body={"name": "Ann", "times": 2}))
        self.expect(r'POST \{"name": "Ann", "times": 2\}\s+working on Ann\s+returned in [\d.]+ ms: \["Ann",')

    def test_a_get_gives_its_query_as_strings(self):
        self.write("def main(**query):\n    query.pop('context')\n    return query\n")
        self.start()
        query = urllib.parse.urlencode({"name": "Ann & Bo", "n": "1"})
        self.assertEqual({"name": "Ann & Bo", "n": "1"}, self.result("GET", path=f"/?{query}"))

    def test_the_calling_convention_is_that_of_the_platform(self):
        self.write("async def main(text, context):\n    return [text, context['os_session']]\n")
        self.start()
        self.assertEqual(["[1, 2]", None], self.result(body=[1, 2]))

    def test_an_exception_is_a_500_with_the_traceback_of_the_users_code_only(self):
        self.write("def main():\n    return 1 / 0\n")
        self.start()
        status, text = self.call()
        self.assertEqual(500, status)
        self.assertIn("ZeroDivisionError: division by zero", text)
        self.assertIn('main.py", line 2', text)
        self.assertNotIn("funcplat", text)
        self.expect("ZeroDivisionError")

    def test_arguments_that_do_not_fit_are_explained(self):
        self.write("def main(name):\n    return name\n")
        self.start()
        status, text = self.call(body={"nmae": "Ann"})
        self.assertEqual(500, status)
        self.assertIn("main(name)", text)

    def test_a_result_that_is_not_json_is_refused(self):
        self.write("def main():\n    return {1, 2}\n")
        self.start()
        status, text = self.call()
        self.assertEqual((500, True), (status, "set is not JSON serializable" in text))

    def test_an_exit_of_the_function_does_not_end_the_server(self):
        self.write("import sys\ndef main(code=None):\n    return sys.exit(code) if code else 'still here'\n")
        self.start()
        self.assertEqual(500, self.call(body={"code": 3})[0])
        self.assertEqual("still here", self.result())

    def test_environment_and_entry_come_from_options(self):
        self.write("import os\ndef go():\n    return os.environ['COLOUR']\n", "app/work.py")
        self.start("--env", "COLOUR=blue", "--entry", "app.work.go")
        self.assertEqual("blue", self.result())

    def test_a_file_is_run_by_its_own_name(self):
        path = self.write("def main():\n    return 'from a file'\n", "hello.py")
        self.start(path=path)
        self.assertEqual("from a file", self.result())

    def test_pages_of_the_web_cannot_call_the_function(self):
        self.write("def main():\n    return 1\n")
        self.start()
        for headers in ({"Origin": "https://example.org"}, {"Host": "example.org"}):
            self.assertEqual(403, self.call(headers=headers)[0])
        self.assertEqual(404, self.call("GET", path="/favicon.ico")[0])

    def test_control_c_ends_it(self):
        self.write("def main():\n    return 1\n")
        self.start()
        self.process.send_signal(2)
        self.assertEqual(130, self.process.wait(PATIENCE))


class ReloadTests(DevCase):
    def test_a_call_after_a_save_runs_the_new_code_however_soon_it_comes(self):
        self.write("def main():\n    return 0\n")
        self.start()
        for number in range(1, 8):
            # Of the same size and within a second: what Python's own cache would miss.
            self.write(f"def main():\n    return {number}\n")
            self.assertEqual(number, self.result())

    def test_a_save_is_noticed_without_a_call(self):
        self.write("def main():\n    return 1\n")
        self.start()
        self.expect("imported main.main")
        self.write("def main():\n    return 2\n")
        self.expect(r"changed: main.py\s+imported main.main in [\d.]+ ms")

    def test_only_modules_of_the_folder_are_imported_again(self):
        self.write(
            "import helper, json\njson.seen = getattr(json, 'seen', 0) + 1\n"
            "def main():\n    return [helper.VALUE, json.seen]\n"
        )
        self.write("VALUE = 'a'\n", "helper.py")
        self.start()
        self.assertEqual(["a", 1], self.result())
        self.write("VALUE = 'b'\n", "helper.py")
        self.assertEqual(["b", 2], self.result())

    def test_a_syntax_error_is_shown_and_the_next_save_recovers(self):
        self.write("def main():\n    return 1\n")
        self.start()
        self.write("def main(:\n    return 2\n")
        self.expect("SyntaxError")
        status, text = self.call()
        self.assertEqual((500, True), (status, "SyntaxError" in text))
        self.write("def main():\n    return 3\n")
        self.assertEqual(3, self.result())

    def test_a_first_import_that_fails_recovers_too(self):
        self.write("import helper\ndef main():\n    return helper.VALUE\n")
        self.start()
        self.expect("No module named 'helper'")
        self.write("VALUE = 5\n", "helper.py")
        self.assertEqual(5, self.result())

    def test_an_entry_that_does_not_exist_is_explained(self):
        self.write("def other():\n    return 1\n")
        self.start()
        self.expect("no function named 'main'; it has other")


class TerminalTests(DevCase):
    def test_a_breakpoint_stops_in_the_terminal(self):
        self.write("def main(name):\n    breakpoint()\n    return name\n")
        self.start()
        connection = self.request(body={"name": "Ann"})
        self.expect(r"\(Pdb\) ")
        self.type("name = name + ' of the debugger'\n")
        self.expect(r"\(Pdb\) ")
        self.type("continue\n")
        self.assertEqual('"Ann of the debugger"', connection.getresponse().read().decode().strip())

    def test_input_reads_from_the_terminal(self):
        self.write("def main():\n    return input('your name? ')\n")
        self.start()
        connection = self.request()
        self.expect(r"your name\? ")
        self.type("Ann\n")
        self.assertEqual('"Ann"', connection.getresponse().read().decode().strip())


class OnceTests(DevCase):
    def once(self, *words, code=0):
        command = [sys.executable, "-m", "funcplat.cmd", "dev", str(self.folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(code, done.returncode, done.stderr)
        return done

    def test_one_call_prints_the_result(self):
        self.write("def main(n, name='x'):\n    return {name: n + 1}\n")
        self.assertEqual({"y": 2}, json.loads(self.once("--call", "n=1", "name=y").stdout))
        self.assertEqual({"x": 3}, json.loads(self.once("--input", '{"n": 2}').stdout))

    def test_a_failure_exits_with_1(self):
        self.write("def main():\n    raise ValueError('too bad')\n")
        done = self.once("--call", code=1)
        self.assertEqual((True, ""), ("ValueError: too bad" in done.stderr, done.stdout))

    def test_a_failed_import_exits_with_1(self):
        self.write("1 / 0\n")
        self.assertIn("ZeroDivisionError", self.once("--call", code=1).stderr)

    def test_what_is_no_function_is_a_usage_error(self):
        command = [sys.executable, "-m", "funcplat.cmd", "dev", str(self.folder / "missing")]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(2, done.returncode)
        self.assertIn("neither a directory nor a Python file", done.stderr)

    def test_a_port_that_is_taken_is_a_usage_error(self):
        self.write("def main():\n    return 1\n")
        self.start()
        self.assertIn("--port", self.once("--port", str(self.port), code=2).stderr)


class SourcesTests(DevCase):
    def test_changes_are_told_once(self):
        self.write("x = 1", "a.py")
        watched = sources.Sources(self.folder)
        self.write("x = 22", "a.py")
        self.write("", "sub/b.py")
        self.write("", ".venv/c.py")
        self.write("", "notes.txt")
        self.assertEqual(["a.py", "sub/b.py"], watched.changed())
        self.assertEqual([], watched.changed())
        (self.folder / "a.py").unlink()
        self.assertEqual(["a.py"], watched.changed())

    def test_a_single_file_has_no_folders(self):
        watched = sources.Sources(self.folder, recursive=False)
        self.write("", "sub/b.py")
        self.assertEqual([], watched.changed())

"""What surrounds every command: help, options, errors, start-up."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import fixtures
import testtools

from funcplat.cmd import failures, main
from tests import cli_server

UNREACHABLE = "http://127.0.0.1:9"


class Silent(fixtures.Fixture):
    """A port that is accepted on; ``answer`` is all that ever comes back, then the connection ends."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__()
        self._answer = answer

    def _setUp(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.accepted = threading.Event()
        thread = threading.Thread(target=self._serve, args=(listener,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(listener.close)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)

    def _serve(self, listener):
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    self.accepted.set()
                    if self._answer is None:
                        connection.recv(1)  # until the client gives up
                    else:
                        connection.sendall(self._answer)


class DocumentationTests(testtools.TestCase):
    PAGE = pathlib.Path(__file__).parents[2] / "docs" / "user" / "cli.rst"

    def test_every_command_is_documented(self):
        text = self.PAGE.read_text()
        for group in main.COMMANDS.values():
            for name in group:
                self.assertIn(f"``funcplat {name}", text)

    def test_every_exit_code_is_documented(self):
        codes = [failure.exit_code for failure in failures.Failure.__subclasses__()]
        for code in (0, *codes, failures.INTERRUPTED, failures.BROKEN_PIPE):
            self.assertRegex(self.PAGE.read_text(), rf"(?m)^{code}  ")

    def test_every_option_of_every_command_is_documented(self):
        # Formats are cliff's, and the table of formats names what matters of them.
        theirs = {"--help", "--format", "--column", "--variable", "--noindent", "--prefix", "--max-width"}
        theirs |= {"--fit-width", "--print-empty", "--quote", "--sort-column", "--sort-ascending"}
        theirs |= {"--sort-descending", "--name", "--shell"}
        text = self.PAGE.read_text() + (self.PAGE.parent / "dev.rst").read_text()
        application = main.Application()
        for group in main.COMMANDS.values():
            for name, value in group.items():
                parser = main.Entry(value).load()(application, None, cmd_name=name).get_parser(name)
                for action in parser._actions:
                    long = max(action.option_strings, key=len, default="")
                    if long not in theirs:
                        self.assertIn(f"``{long}", text, f"{long} of {name}")


class HelpTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.cli = self.useFixture(cli_server.CommandLine(UNREACHABLE))

    def test_help_lists_every_command_with_a_line(self):
        shown = self.cli("--help").out
        for group in main.COMMANDS.values():
            for name in group:
                self.assertRegex(shown, rf"(?m)^  {name} +\S.+$")

    def test_every_command_has_help(self):
        for group in main.COMMANDS.values():
            for name in group:
                result = self.cli(*name.split(), "--help")
                self.assertEqual(0, result.code)
                self.assertIn(f"usage: funcplat {name}", result.out)

    def test_help_of_a_noun_lists_its_commands(self):
        result = self.cli("help", "runtime")
        self.assertIn("runtime pool", result.out)
        self.assertNotIn("function", result.out.split("runtime")[0])

    def test_an_unknown_command_names_similar_ones(self):
        for words in (["function", "lst"], ["functoin", "list"]):
            result = self.cli(*words)
            self.assertEqual(2, result.code)
            self.assertIn("function list", result.err)

    def test_a_wrong_option_is_a_usage_error(self):
        self.assertEqual(2, self.cli("function", "list", "--colour").code)

    def test_options_alone_are_no_command(self):
        result = self.cli("--quiet")
        self.assertEqual(2, result.code)
        self.assertIn("which command?", result.err)

    def test_completion_for_bash_knows_commands_and_options(self):
        shown = self.cli("complete").out
        self.assertIn("cmds_function='create", shown)
        self.assertIn("--memory", shown)


class ConnectionTests(testtools.TestCase):
    def fail(self, code, endpoint, *words):
        result = self.useFixture(cli_server.CommandLine(endpoint))(*words or ("function", "list"))
        self.assertEqual(code, result.code)
        self.assertNotIn("Traceback", result.err)
        return result.err

    def test_no_server_says_how_to_start_one(self):
        err = self.fail(6, UNREACHABLE)
        self.assertIn(f"no server answers at {UNREACHABLE}: start one with `funcplat serve`", err)

    def test_debug_shows_a_traceback_with_the_line(self):
        result = self.useFixture(cli_server.CommandLine(UNREACHABLE))("function", "list", "--debug")
        self.assertEqual(6, result.code)
        self.assertIn("ConnectionRefusedError", result.err)
        self.assertTrue(result.err.splitlines()[-1].startswith("error: no server answers"))

    def test_an_endpoint_that_is_no_url_is_a_usage_error(self):
        for endpoint in ("localhost:7070", "ftp://x", "http://", "http://x:port"):
            self.assertIn("endpoint", self.fail(2, endpoint))

    def test_a_silent_server_is_given_up(self):
        silent = self.useFixture(Silent(None))
        err = self.fail(6, silent.endpoint, "--request-timeout", "0.1", "function", "list")
        self.assertIn("silent for 0.1 s", err)

    def test_a_server_that_hangs_up_has_not_answered(self):
        self.assertIn("without an answer", self.fail(6, self.useFixture(Silent(b"")).endpoint))

    def test_half_an_answer_is_none(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
        self.assertIn("in the middle", self.fail(6, self.useFixture(Silent(answer)).endpoint))

    def test_another_protocol_is_named(self):
        self.assertIn("does not speak HTTP", self.fail(6, self.useFixture(Silent(b"SSH-2.0-x\r\n")).endpoint))

    def test_an_answer_that_is_not_json_is_shown(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
        self.assertIn("'<html>'", self.fail(3, self.useFixture(Silent(answer)).endpoint))

    def test_an_error_that_is_not_json_is_shown(self):
        answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"
        self.assertIn("HTTP 502: '<html>'", self.fail(3, self.useFixture(Silent(answer)).endpoint))

    def test_a_kept_connection_that_the_server_closed_is_opened_again(self):
        answer = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"versions": []}'
        result = self.useFixture(cli_server.CommandLine(self.useFixture(Silent(answer)).endpoint))("status")
        self.assertEqual(0, result.code, result.err)


class OptionTests(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.server = self.useFixture(cli_server.Server())

    def run_with(self, *words, **environment):
        cli = self.useFixture(cli_server.CommandLine(self.server.endpoint))
        for name, value in environment.items():
            self.useFixture(fixtures.EnvironmentVariable(name, value))
        return cli(*words)

    def test_no_token_is_sent_where_none_is_given(self):
        self.run_with("function", "list")
        self.assertNotIn("x-auth-token", self.server.requests[0].headers)

    def test_the_token_comes_from_an_option_before_or_after_the_command(self):
        self.run_with("--token", "t1", "function", "list")
        self.run_with("function", "list", "--token", "t2")
        tokens = [request.headers["x-auth-token"] for request in self.server.requests]
        self.assertEqual(["t1", "t2"], tokens)

    def test_the_token_comes_from_the_environment(self):
        self.run_with("function", "list", FUNCPLAT_TOKEN="t3")
        self.assertEqual("t3", self.server.requests[0].headers["x-auth-token"])

    def test_a_refused_token_exits_with_5(self):
        answer = cli_server.fault(401, "unauthenticated", "Authentication required.")
        self.server.prepare("GET", "/v1/functions", answer)
        self.assertEqual(5, self.run_with("function", "list").code)

    def test_an_endpoint_may_end_in_v1_and_have_a_path(self):
        cli = self.useFixture(cli_server.CommandLine(f"{self.server.endpoint}/under/v1/"))
        self.assertEqual(4, cli("function", "list").code)
        self.assertEqual("/under/v1/functions", self.server.requests[0].path)

    def test_verbose_shows_requests(self):
        result = self.run_with("function", "list", "--verbose")
        self.assertRegex(result.err, r"GET /v1/functions: 200 in 0\.\d+ s")


class ProcessTests(testtools.TestCase):
    """Where the process itself matters."""

    def start(self, *words, **more):
        command = [sys.executable, "-m", "funcplat.cmd", *words]
        environment = {**os.environ, "FUNCPLAT_ENDPOINT": UNREACHABLE}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def test_user_commands_import_nothing_of_the_server_and_no_slow_library(self):
        code = (
            "import sys, json\nfrom funcplat.cmd import main\n"
            "main.run(['--endpoint', sys.argv[1], 'function', 'list'])\nmain.run(['--help'])\n"
            "print(json.dumps(sorted(sys.modules)))"
        )
        output = subprocess.run(
            [sys.executable, "-c", code, UNREACHABLE], capture_output=True, text=True, check=True
        ).stdout
        imported = {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}
        slow = {"cmd2", "falcon", "httpx", "oslo_config", "sqlalchemy", "uvicorn", "yaml"}
        self.assertEqual(set(), imported & slow)

    def test_control_c_exits_with_130_and_no_traceback(self):
        silent = self.useFixture(Silent(None))
        process = self.start("--endpoint", silent.endpoint, "function", "list")
        self.assertTrue(silent.accepted.wait(30))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual((130, ""), (process.returncode, err))

    def test_a_reader_that_left_exits_with_141_and_no_traceback(self):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "funcplat.cmd", "--help"]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        self.assertEqual((141, ""), (done.returncode, done.stderr))

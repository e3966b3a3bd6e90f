"""The last python-qinlingclient, unchanged, against a real server: Python API and ``openstack`` commands.

FUNCPLAT_TEST_QINLING_VENV names a virtual environment that holds it.  The client's libraries would not go
with the platform's, so it runs in its own interpreter.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import subprocess
import textwrap
import uuid
import zipfile
from typing import Any

import testtools
from testtools import content

from tests.functional.platform import HELLO, IMAGE, package, token_of, until
from tests.integration.server import Server

VARIABLE = "FUNCPLAT_TEST_QINLING_VENV"
DEADLINE = 120.0

PRELUDE = """
import io, json, sys, time
from qinlingclient import client
from qinlingclient.common import exceptions
URL, WORD, PACKAGE, IMAGE, REFUSAL, OTHER = sys.argv[1:7]

def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.03)
    raise AssertionError("not in time")

def fails(kind, call, *args, **more):
    try:
        call(*args, **more)
    except kind as error:
        return str(error)
    raise AssertionError(f"{call} did not raise {kind}")
"""
TOKEN_CLIENT = 'qinling = client.Client("1", URL, token=WORD)\n'
SESSION_CLIENT = """
from keystoneauth1 import noauth, session
qinling = client.Client("1", URL, session=session.Session(auth=noauth.NoAuth(endpoint=URL)),
                        service_type="function-engine")
"""
RUNTIMES = """
runtime = qinling.runtimes.create(IMAGE, name=WORD, description="d")
assert (runtime.status, runtime.image, runtime.is_public) == ("creating", IMAGE, True), runtime
until(lambda: qinling.runtimes.get(runtime.id).status == "available")
assert runtime.id in [each.id for each in qinling.runtimes.list()]
assert qinling.runtimes.find(name=WORD).id == runtime.id
assert qinling.runtimes.get_pool(runtime.id).capacity["total"] > 0
"""
FUNCTIONS = """
with open(PACKAGE, "rb") as file:
    function = qinling.functions.create({"source": "package"}, runtime=runtime.id, package=file, name="f",
                                        cpu=200, memory_size=67108864, timeout=7)
assert (function.name, function.cpu, function.memory_size, function.timeout) == ("f", 200, 67108864, 7)
assert function.code["source"] == "package" and function.entry == "main.main"
assert [each.id for each in qinling.functions.list()] == [function.id]
assert json.loads(qinling.functions.list()[0].code) == function.code
assert qinling.functions.find(name="f").id == qinling.functions.get(function.id).id == function.id
updated = qinling.functions.update(function.id, name="g", code={"source": "package"}, description="new")
assert (updated.name, updated.description, updated.code) == ("g", "new", function.code)
"""
EXECUTIONS = """
runs = qinling.function_executions
done = runs.create(function_id=function.id, input='{"name": "Ann"}', sync=True)
assert (done.status, json.loads(done.result)["output"]) == ("success", "Hello, Ann!"), done
later = runs.create(function_id=function.id, sync=False)
until(lambda: runs.get(later.id).status == "success")
assert {each.id for each in runs.list(function_id=function.id)} == {done.id, later.id}
assert [each.id for each in runs.list(status="failed")] == []
runs.delete(later.id)
assert [each.id for each in runs.list()] == [done.id]
"""
VERSIONS = """
versions = qinling.function_versions
first = versions.create(function.id, description="first")
assert (first.version_number, first.description, first.count) == (1, "first", 0), first
from qinlingclient.common import exceptions as e
assert "not changed since the latest version 1" in fails(e.HTTPForbidden, versions.create, function.id)
assert [each.version_number for each in versions.list(function.id)] == [1]
assert versions.get(function.id, 1).id == first.id
assert qinling.functions.get(function.id).latest_version == 1
with open(OTHER, "rb") as file:
    qinling.functions.update(function.id, package=file, code={"source": "package"})
second = versions.create(function.id)
assert (second.version_number, second.description) == (2, ""), second
old = runs.create(function_id=function.id, function_version=1, input='{"name": "Ann"}')
new = runs.create(function_id=function.id, function_version=2)
assert (old.function_version, json.loads(old.result)["output"]) == (1, "Hello, Ann!"), old
assert (new.function_version, json.loads(new.result)["output"]) == (2, "other"), new
assert versions.get(function.id, 1).count == 1
versions.detach(function.id, 1)
assert "not found" in fails(e.HTTPNotFound, versions.get, function.id, 3)
assert "not found" in fails(e.HTTPNotFound, runs.create, function_id=function.id, function_version=3)
"""
ALIASES = """
aliases = qinling.function_aliases
alias = aliases.create("prod", function_id=function.id, function_version=1, description="d")
assert (alias.name, alias.function_id, alias.function_version) == ("prod", function.id, 1), alias
assert [each.name for each in aliases.list()] == ["prod"]
assert aliases.get("prod").description == "d"
done = runs.create(function_alias="prod", input='{"name": "Bo"}')
assert (done.function_id, done.function_version, done.function_alias) == (function.id, 1, "prod"), done
assert json.loads(done.result)["output"] == "Hello, Bo!"
assert "Duplicate" in fails(e.HTTPBadRequest, aliases.create, "prod", function_id=function.id)
assert aliases.update("prod", function_version=2).function_version == 2
assert aliases.update("prod", description="e").function_version == 2
assert json.loads(runs.create(function_alias="prod").result)["output"] == "other"
assert "in use" in fails(e.HTTPForbidden, versions.delete, function.id, 2)
assert "in use" in fails(e.HTTPForbidden, qinling.functions.delete, function.id)
aliases.delete("prod")
assert "not found" in fails(e.HTTPNotFound, aliases.get, "prod")
assert "not found" in fails(e.HTTPNotFound, runs.create, function_alias="prod")
for number in (1, 2):
    versions.delete(function.id, number)
assert versions.list(function.id) == []
assert qinling.functions.get(function.id).latest_version == 0
assert versions.create(function.id).version_number == 3
"""
SCALING = """
assert [each.function_id for each in qinling.function_workers.list(function.id)] == [function.id]
qinling.functions.scaleup(function.id, count=1)
until(lambda: len(qinling.function_workers.list(function.id)) == 2)
qinling.functions.scaledown(function.id, count=5)
until(lambda: len(qinling.function_workers.list(function.id)) == 1)
qinling.functions.detach(function.id)
until(lambda: not qinling.function_workers.list(function.id))
"""
ERRORS = """
from qinlingclient.common import exceptions as e
unknown = "00000000-0000-4000-8000-000000000000"
assert "Function not found" in fails(e.HTTPNotFound, qinling.functions.get, unknown)
assert "Runtime not found" in fails(e.HTTPNotFound, qinling.runtimes.get, unknown)
assert "Execution not found" in fails(e.HTTPNotFound, qinling.function_executions.get, unknown)
assert "uuid" in fails(e.HTTPBadRequest, qinling.runtimes.get, "abc")
assert "function_id" in fails(e.HTTPBadRequest, qinling.function_executions.create)
assert "still in use" in fails(e.HTTPForbidden, qinling.runtimes.delete, runtime.id)
with open(PACKAGE, "rb") as file:
    code = {"source": "package", "md5sum": "0" * 32}
    assert "md5" in fails(e.HTTPBadRequest, qinling.functions.create, code, runtime=runtime.id, package=file)
image = {"source": "image", "image": "Not A Name"}
assert REFUSAL in fails(e.HTTPBadRequest, qinling.functions.create, image)
"""
# PERF: the program ``openstack``, whose imports take two seconds, imported once for all commands of a test.
SHELL = """
import io, json, sys
from openstackclient import shell
lines, answers = sys.stdin, sys.stdout
for line in lines:
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()
    try:
        code = shell.main(json.loads(line))
    except SystemExit as leaving:
        code = leaving.code
    print(json.dumps([code, sys.stdout.getvalue(), sys.stderr.getvalue()]), file=answers, flush=True)
"""
CLEAN_UP = """
qinling.functions.delete(function.id)
assert qinling.functions.list() == []
qinling.runtimes.delete(runtime.id)
"""


class ClientTest(testtools.TestCase):
    auth = "noauth"
    image = IMAGE
    """Of a Python runtime."""
    refusal = "needs an orchestrator driver that runs images"
    """What is said of a function of an image that cannot be."""

    def setUp(self) -> None:
        super().setUp()
        directory = os.environ.get(VARIABLE)
        if not directory:
            self.skipTest(f"{VARIABLE} names no virtual environment with python-qinlingclient")
        self.venv = pathlib.Path(directory)
        self.server = self.useFixture(self.make_server())
        self.addOnException(lambda _: self.addDetail("server", content.text_content(self.server.tail())))
        self.package = self.server.home / "f.zip"
        self.package.write_bytes(package(HELLO))
        self.other = self.server.home / "other.zip"
        self.other.write_bytes(package("def main(**kwargs):\n    return 'other'\n"))

    def make_server(self) -> Server:
        return Server(auth=self.auth)

    def run_program(self, *argv: object, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        return subprocess.run(
            [str(each) for each in argv],
            env={**clean, **environment},
            cwd=self.server.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def run_python(self, *parts: str, word: str = "word") -> None:
        script = PRELUDE + "".join(parts)
        given = (self.server.endpoint, word, self.package, self.image, self.refusal, self.other)
        done = self.run_program(self.venv / "bin" / "python", "-c", script, *given)
        self.assertEqual(0, done.returncode, done.stderr[-3000:])


class PythonTests(ClientTest):
    def test_the_client_with_a_session(self) -> None:
        logs = 'assert "greeting Ann" in runs.get_log(done.id)\n'
        download = """
        data = qinling.functions.get(function.id, download=True)
        assert data.raw.read() == open(PACKAGE, "rb").read()
        """
        self.run_python(
            SESSION_CLIENT,
            RUNTIMES,
            FUNCTIONS,
            EXECUTIONS,
            logs,
            SCALING,
            textwrap.dedent(download),
            ERRORS,
            VERSIONS,
            ALIASES,
            CLEAN_UP,
        )

    def test_the_client_with_a_token(self) -> None:
        download = """
        data = qinling.functions.get(function.id, download=True)
        assert data.content == open(PACKAGE, "rb").read()
        """
        self.run_python(
            TOKEN_CLIENT,
            RUNTIMES,
            FUNCTIONS,
            EXECUTIONS,
            SCALING,
            textwrap.dedent(download),
            ERRORS,
            VERSIONS,
            ALIASES,
            CLEAN_UP,
        )


class TokenTests(ClientTest):
    auth = "tokens"

    def test_errors_of_callers_who_may_not(self) -> None:
        member = """
        from qinlingclient.common import exceptions as e
        assert "not allowed" in fails(e.HTTPForbidden, qinling.runtimes.create, "python3")
        assert "not allowed" in fails(e.HTTPForbidden, qinling.functions.list, all_projects=True)
        assert qinling.functions.list() == []
        """
        self.run_python(TOKEN_CLIENT, textwrap.dedent(member), word=token_of("p0"))

    def test_a_wrong_token(self) -> None:
        stranger = """
        from qinlingclient.common import exceptions as e
        fails((e.HTTPUnauthorized, e.Unauthorized, e.HTTPException), qinling.functions.list)
        """
        self.run_python(TOKEN_CLIENT, textwrap.dedent(stranger), word="nobody-gave-this")


class CommandTest(ClientTest):
    """Tests of commands of ``openstack``."""

    def setUp(self) -> None:
        super().setUp()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        self.shell = subprocess.Popen(
            [self.venv / "bin" / "python", "-c", SHELL],
            env={**clean, "OS_AUTH_TYPE": "none", "OS_ENDPOINT": self.server.endpoint},
            cwd=self.server.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.shell.communicate)

    def openstack(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``openstack``."""
        assert self.shell.stdin is not None and self.shell.stdout is not None
        self.shell.stdin.write(json.dumps(words) + "\n")
        self.shell.stdin.flush()
        code, out, err = json.loads(self.shell.stdout.readline())
        return subprocess.CompletedProcess(words, code, out, err)

    def succeed(self, *words: str) -> str:
        done = self.openstack(*words)
        self.assertEqual(0, done.returncode, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    def parsed(self, *words: str) -> Any:
        return json.loads(self.succeed(*words, "-f", "json"))

    def runtime(self) -> str:
        made = self.server.admin.post("/v1/runtimes", {"image": self.image, "name": "python"}).json()
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "available", "the runtime")
        return str(made["id"])


class CommandTests(CommandTest):
    def test_runtimes(self) -> None:
        made = self.parsed(
            "runtime", "create", self.image, "--name", "mine", "--description", "d", "--untrusted"
        )
        self.assertEqual(
            (self.image, "mine", "d", True, False),
            tuple(made[k] for k in ("image", "name", "description", "is_public", "trusted")),
        )
        until(
            lambda: self.server.admin.get(f"/v1/runtimes/{made['id']}").json()["status"] == "available", "it"
        )
        self.assertEqual([made["id"]], [row["Id"] for row in self.parsed("runtime", "list")])
        self.assertEqual("available", self.parsed("runtime", "show", made["id"])["status"])
        self.assertEqual(made["id"], self.parsed("runtime", "pool", "show", made["id"])["name"])
        self.succeed("runtime", "delete", made["id"])
        until(lambda: not self.server.admin.get("/v1/runtimes").json()["runtimes"], "it is gone")

    def test_functions(self) -> None:
        self.runtime()
        source = self.server.home / "hello.py"
        source.write_text("def main(name='World', **kwargs):\n    return name\n")
        made = self.parsed(
            "function", "create", "--name", "f", "--runtime", "python", "--package", str(self.package)
        )
        other = self.parsed(
            "function",
            "create",
            "--name",
            "h",
            "--runtime",
            "python",
            "--file",
            str(source),
            "--entry",
            "hello.main",
            "--cpu",
            "150",
            "--memory-size",
            "50331648",
            "--timeout",
            "9",
        )
        self.assertEqual(
            (150, 50331648, 9, "hello.main"),
            tuple(other[k] for k in ("cpu", "memory_size", "timeout", "entry")),
        )
        listed = self.parsed("function", "list")
        self.assertEqual([made["id"], other["id"]], [row["Id"] for row in listed])
        self.assertEqual(
            [made["id"], other["id"]],
            [row["Id"] for row in self.parsed("function", "list", "--filter", "all_projects=true")],
        )
        self.assertEqual(made["id"], self.parsed("function", "show", "f")["id"])
        self.assertEqual(
            "text", self.parsed("function", "update", "f", "--description", "text")["description"]
        )
        changed = self.parsed("function", "update", "f", "--file", str(source), "--entry", "hello.main")
        self.assertNotEqual(made["code"], changed["code"])
        self.succeed("function", "download", "f")
        archive = zipfile.ZipFile(io.BytesIO((self.server.home / f"{made['id']}.zip").read_bytes()))
        self.assertIn("hello.py", archive.namelist())
        self.succeed("function", "delete", "f", "h")
        failed = self.openstack("function", "delete", str(uuid.uuid4()))
        self.assertEqual(1, failed.returncode)
        self.assertEqual([], self.server.admin.get("/v1/functions").json()["functions"])

    def test_executions_and_workers(self) -> None:
        self.runtime()
        function = self.parsed(
            "function", "create", "--name", "f", "--runtime", "python", "--package", str(self.package)
        )["id"]
        done = self.parsed(
            "function", "execution", "create", "--function", "f", "--input", '{"name": "Ann"}', "--sync"
        )
        self.assertEqual(("success", "Hello, Ann!"), (done["status"], json.loads(done["result"])["output"]))
        later = self.parsed("function", "execution", "create", "--function", function, "--async")
        path = f"/v1/executions/{later['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "success", "it has ended")
        listed = self.parsed(
            "function",
            "execution",
            "list",
            "--filter",
            "status=success",
            "--filter",
            f"function_id={function}",
        )
        self.assertEqual([done["id"], later["id"]], [row["Id"] for row in listed])
        self.assertEqual("success", self.parsed("function", "execution", "show", done["id"])["status"])
        self.assertIn("greeting Ann", self.succeed("function", "execution", "log", "show", done["id"]))
        self.assertEqual(1, len(self.parsed("function", "worker", "list", function)))
        self.succeed("function", "scaleup", function, "--count", "1")
        until(lambda: len(self.server.workers(function)) == 2, "two workers")
        self.succeed("function", "scaledown", function, "--count", "1")
        until(lambda: len(self.server.workers(function)) == 1, "one worker")
        self.succeed("function", "detach", function)
        until(lambda: not self.server.workers(function), "no worker")
        self.succeed("function", "execution", "delete", "--execution", done["id"])
        self.succeed("function", "execution", "delete", "--function", function)
        self.assertEqual([], self.server.admin.get("/v1/executions").json()["executions"])

    def function(self) -> str:
        self.runtime()
        words = ("function", "create", "--name", "f", "--runtime", "python", "--package", str(self.package))
        return str(self.parsed(*words)["id"])

    def run_output(self, *words: str) -> tuple[int, str]:
        """The version that a synchronous execution ran, and what that returned."""
        done = self.parsed("function", "execution", "create", *words, "--sync")
        self.assertEqual("success", done["status"], done)
        return int(done["function_version"]), json.loads(done["result"])["output"]

    def test_versions(self) -> None:
        function = self.function()
        made = self.parsed("function", "version", "create", "f", "--description", "first")
        self.assertEqual(
            (1, "first", function), tuple(made[k] for k in ("version_number", "description", "function_id"))
        )
        again = self.openstack("function", "version", "create", function)
        self.assertEqual(1, again.returncode)
        self.assertIn("not changed since the latest version 1", again.stdout + again.stderr)
        self.succeed("function", "update", "f", "--package", str(self.other))
        self.assertEqual(2, self.parsed("function", "version", "create", function)["version_number"])
        listed = self.parsed("function", "version", "list", function)
        self.assertEqual([1, 2], [row["Version_number"] for row in listed])
        self.assertEqual(0, self.parsed("function", "version", "show", function, "2")["count"])
        of_version = ("--function", "f", "--function-version")
        self.assertEqual((1, "Hello, World!"), self.run_output(*of_version, "1"))
        self.assertEqual((2, "other"), self.run_output(*of_version, "2"))
        self.assertEqual((0, "other"), self.run_output("--function", "f"))
        self.succeed("function", "version", "detach", function, "1")
        self.succeed("function", "version", "delete", function, "2")
        self.assertEqual(1, self.openstack("function", "version", "show", function, "2").returncode)
        self.succeed("function", "delete", "f")

    def test_aliases(self) -> None:
        function = self.function()
        self.succeed("function", "version", "create", "f")
        self.succeed("function", "update", "f", "--package", str(self.other))
        made = self.parsed(
            "function", "alias", "create", "prod", "--function", "f", "--function-version", "1"
        )
        self.assertEqual(
            ("prod", function, 1, ""),
            tuple(made[k] for k in ("name", "function_id", "function_version", "description")),
        )
        self.assertEqual(["prod"], [row["Name"] for row in self.parsed("function", "alias", "list")])
        self.assertEqual(1, self.parsed("function", "alias", "show", "prod")["function_version"])
        self.assertEqual((1, "Hello, World!"), self.run_output("--function-alias", "prod"))
        for words in (("version", "delete", function, "1"), ("delete", "f")):
            refused = self.openstack("function", *words)
            self.assertIn("still in use by alias prod", refused.stdout + refused.stderr)
        changed = self.parsed("function", "alias", "update", "prod", "--function-version", "0")
        self.assertEqual(0, changed["function_version"])
        self.assertEqual((0, "other"), self.run_output("--function-alias", "prod"))
        described = self.parsed("function", "alias", "update", "prod", "--description", "text")
        self.assertEqual(("text", 0), (described["description"], described["function_version"]))
        self.succeed("function", "alias", "delete", "prod")
        self.assertEqual([], self.server.admin.get("/v1/aliases").json()["function_aliases"])
        self.succeed("function", "delete", "f")

    def test_refusals_are_printed_as_the_server_says_them(self) -> None:
        self.runtime()
        for words, text in (
            (["function", "create", "--image", "Not A Name", "--name", "i"], self.refusal),
            (
                ["function", "create", "--container", "c", "--object", "o", "--runtime", "python"],
                "needs the storage driver",
            ),
            (["function", "show", "no-such"], "no-such"),
            (["function", "execution", "show", str(uuid.uuid4())], "Execution not found"),
            (["runtime", "delete", "abc"], "uuid"),
        ):
            done = self.openstack(*words)
            self.assertEqual(1, done.returncode, done.stdout)
            self.assertIn(text, done.stdout + done.stderr)


class AuditTests(testtools.TestCase):
    """That the tests of this package leave out no command."""

    def test_every_command_of_the_client_is_used_and_succeeds(self) -> None:
        directory = os.environ.get(VARIABLE)
        if not directory:
            self.skipTest(f"{VARIABLE} names no virtual environment with python-qinlingclient")
        ask = (
            "import importlib.metadata as m\n"
            "for each in m.distribution('python-qinlingclient').entry_points:\n"
            "    if each.group == 'openstack.function_engine.v1': print(each.name)"
        )
        python = pathlib.Path(directory) / "bin" / "python"
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
        commands = [tuple(name.split("_")) for name in done.stdout.split()]
        self.assertIn(("function", "execution", "log", "show"), commands)
        self.assertEqual([], [words for words in commands if not self.is_used(words)])

    def test_a_command_that_nobody_uses_is_found(self) -> None:
        self.assertFalse(self.is_used(("function", "dance")))

    def is_used(self, words: tuple[str, ...]) -> bool:
        """Whether a test expects such a command to succeed."""
        wanted = r"(succeed|parsed)\(\s*(\*\()?" + r",\s*".join(re.escape(f'"{word}"') for word in words)
        texts = (path.read_text() for path in pathlib.Path(__file__).parent.glob("test_qinlingclient*.py"))
        return any(re.search(wanted, text) for text in texts)

"""``/ready``, ``/load`` and packages, as tests."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from typing import Any

from funcplat.testing import worker_archives as archives
from funcplat.testing import workerclient
from funcplat.testing.worker_case import WorkerCase
from funcplat.testing.workerclient import MISSING, WorkerClient

MAX_LINE = 1 << 20
"""Bytes of the line of /load, its line feed included."""

_UNUSABLE: tuple[tuple[str, Any], ...] = (
    ("secret", MISSING),
    ("secret", ""),
    ("secret", "a b"),
    ("secret", "\u20ac"),
    ("secret", "x" * 256),
    ("secret", None),
    ("entry", MISSING),
    ("entry", "main"),
    ("entry", "main."),
    ("entry", ".main"),
    ("entry", 5),
    ("concurrency", 0),
    ("concurrency", 1.5),
    ("concurrency", "3"),
    ("import_timeout", MISSING),
    ("import_timeout", "soon"),
    ("import_timeout", 0),
    ("max_result", MISSING),
    ("max_result", True),
    ("max_result", -1),
    ("max_log", MISSING),
    ("max_log", -1),
    ("environment", {"A=B": "x"}),
    ("environment", {"": "x"}),
    ("environment", {"A": 1}),
    ("environment", {"A": "\0"}),
    ("environment", []),
    ("labels", []),
    ("path", 5),
    ("path", "relative"),
)


class ReadyTests(WorkerCase):
    """``/ready`` and ``/drain`` of the page "The worker protocol"."""

    def test_readiness_tells_the_state(self) -> None:
        client = self.start()
        blank = {"state": "blank", "busy": 0, "concurrency": self.concurrency}
        self.assertEqual(blank, client.ready())
        self.assertEqual(200, client.load(self.package(), concurrency=2).status)
        self.assertEqual({"state": "loaded", "busy": 0, "concurrency": 2}, client.ready())
        other = self.begin(client, ["sleep", 0.5])
        self.assertEqual({"state": "loaded", "busy": 1, "concurrency": 2}, other.ready())
        client.receive_execution()
        self.assertEqual(200, client.drain().status)
        self.assertEqual({"state": "draining", "busy": 0, "concurrency": 2}, other.ready())

    def test_a_draining_worker_ends_what_runs_and_takes_nothing(self) -> None:
        client = self.loaded()
        other = self.begin(client, ["sleep", 0.6], ["value", 1])
        self.assertEqual(403, other.drain("wrong").status)
        self.assertEqual("loaded", other.ready()["state"])
        for _ in range(2):
            self.assertEqual(200, other.drain().status)
        self.assertEqual("draining", other.ready()["state"])
        for body in (b"null", b'{"x": "' + b"x" * 300_000 + b'"}'):
            other.send_invoke(body)
            self.assertEqual(503, other.receive().status)
        self.assertEqual(1, client.receive_execution().output)
        self.wait_for(lambda: other.ready()["busy"] == 0, "a worker that has nothing to do")
        client.send_invoke()
        self.assertEqual(503, client.receive().status)


class LoadTests(WorkerCase):
    """``/load`` of the page "The worker protocol"."""

    def test_a_package_in_a_path_runs(self) -> None:
        path = self.place({self.module: self.source, "lib/data": "data"})
        if path is None:
            self.skipTest("this worker sees no files but those that are pushed to it")
        client = self.start()
        answer = client.load(path=path)
        self.assertEqual(200, answer.status, answer)
        self.assertEqual(path, self.value(client, ["here"]))
        self.assertEqual("data", self.value(client, ["ask", "cat", f"{path}/lib/data"]))

    def test_a_load_is_answered_while_the_import_goes_on(self) -> None:
        client = self.start()
        started = time.monotonic()
        environment = {"ON_IMPORT": json.dumps([["spin", 3.0]])}
        self.assertEqual(200, client.load(self.package(), environment=environment).status)
        self.assertEqual("loaded", client.ready()["state"])
        self.assertLess(time.monotonic() - started, 3.0)
        self.assertEqual(5, self.value(client, ["value", 5]))

    def test_a_load_tells_nothing_of_an_import_that_will_fail(self) -> None:
        client = self.start()
        self.assertEqual(200, client.load(workerclient.package({self.module: "(] {"})).status)
        self.assertEqual("loaded", client.ready()["state"])

    def test_calls_before_the_load_are_refused(self) -> None:
        client = self.start()
        client.send_invoke()
        self.assertEqual(409, client.receive().status)
        self.assertEqual(409, client.log("execution=e1").status)
        self.assertEqual(409, client.drain().status)
        self.assertEqual("blank", client.ready()["state"])

    def test_what_may_be_missing_may_be_missing(self) -> None:
        client = self.start()
        optional = dict.fromkeys(("concurrency", "path", "environment", "labels"), MISSING)
        self.assertEqual(200, client.load(self.package(), **optional).status)
        self.assertEqual(self.concurrency, client.ready()["concurrency"])
        self.assertEqual(["e1", None, None], self.value(client, ["context"]))

    def test_fields_that_a_worker_does_not_know_are_no_matter(self) -> None:
        client = self.loaded(something_new={"a": 1}, labels={"something": "new"})
        self.assert_serves(client)

    def test_fields_that_cannot_be_used_are_named(self) -> None:
        client = self.start()
        for name, value in _UNUSABLE:
            answer = client.load(self.package(), **{name: value})
            self.assert_refused(400, answer)
            self.assertIn(name, answer.json()["message"], value)
        self._assert_blank(client)

    def test_an_entry_that_is_null_is_for_workers_that_carry_their_function(self) -> None:
        client = self.start()
        for package in (b"", self.package()):
            self.assert_refused(400, client.load(package, entry=None))
        self._assert_blank(client)

    def test_a_secret_may_have_255_characters_of_any_kind(self) -> None:
        secret = "".join(map(chr, range(0x21, 0x7F))) * 3
        client = self.loaded(secret=secret[:255])
        client.send_invoke({"steps": [["value", 1]]}, secret=secret[:255])
        self.assertEqual(1, client.receive_execution().output)
        client.send_invoke(secret=secret[:254])
        self.assertEqual(403, client.receive().status)

    def test_the_line_may_have_1_mib_and_no_more(self) -> None:
        client = self.start()
        for excess, status in ((1, 400), (0, 200)):
            empty = len(self._line(filler=""))
            line = self._line(filler="x" * (MAX_LINE + excess - empty))
            self.assertEqual(status, client.ask("POST", "/load", line + self.package()).status)

    def _line(self, **fields: Any) -> bytes:
        line = {"secret": workerclient.SECRET, "entry": "main.main", "import_timeout": 30}
        return json.dumps({**line, "max_result": 1000, "max_log": 1000, **fields}).encode() + b"\n"

    def test_a_load_that_failed_may_be_repeated(self) -> None:
        client = self.start()
        for answer in (
            client.load(b"not a zip file"),
            client.load(),  # neither a path nor a package
            client.load(path="/nonexistent"),
            client.load(self.package(), path="/"),
            client.ask("POST", "/load", b""),
            client.ask("POST", "/load", b"\n" + self.package()),
            client.ask("POST", "/load", b"{}"),
            client.ask("POST", "/load", b"[]\n" + self.package()),
            client.ask("POST", "/load", b'{"secret": \xff}\n' + self.package()),
            client.ask("POST", "/load", self._line(max_log=5)[:-1]),
        ):
            self.assert_refused(400, answer)
        self._assert_blank(client)

    def _assert_blank(self, client: WorkerClient) -> None:
        """The worker is blank, and takes what it should."""
        self.assertEqual("blank", client.ready()["state"])
        self.assertEqual(200, client.load(self.package()).status)
        self.assert_serves(client)

    def test_a_second_load_is_refused(self) -> None:
        client = self.loaded()
        for package in (self.package(), b"x" * 3_000_000):
            self.assertEqual(409, client.load(package, secret="another").status)  # noqa: S106
        self.assert_serves(client)

    def test_a_load_while_another_is_under_way_is_refused(self) -> None:
        client, first = self.start(), self.connect()
        body = self._line() + self.package(filler=os.urandom(1_500_000))
        first.socket.sendall(b"POST /load HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:-1])
        self.wait_for(lambda: client.load(b"x" * 100_000).status == 409, "the upload")
        self.assertEqual("blank", client.ready()["state"])
        first.socket.sendall(body[-1:])
        self.assertEqual(200, first.receive().status)
        self.assert_serves(first)

    def test_an_upload_that_breaks_off_leaves_a_blank_worker(self) -> None:
        client = self.start()
        broken = self.connect()
        broken.socket.sendall(b"POST /load HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 2_000_000)
        self.wait_for(lambda: client.load(b"x" * 100_000).status == 409, "the upload")
        broken.close()
        self.wait_for(lambda: client.load(self.package()).status == 200, "a load")
        self.assert_serves(client)


class PackageTests(WorkerCase):
    """Packages that are pushed."""

    def test_a_pushed_package_runs(self) -> None:
        client = self.loaded()
        self.assertEqual([1, 2, 3], [self.value(client, ["count"]) for _ in range(3)])

    def test_an_entry_may_be_deep_in_a_package(self) -> None:
        client = self.start()
        package = workerclient.package({f"lib/deep/{self.module}": self.source})
        self.assertEqual(200, client.load(package, entry="lib.deep.main.main").status)
        self.assertEqual("deep", self.value(client, ["here"]).rpartition("/")[2])

    def test_members_of_any_length_and_either_method_are_unpacked(self) -> None:
        contents = {"random": os.urandom(3_000_000), "plain": b"compressible " * 300_000, "empty": b""}
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            others = archives.packed({**contents, "folder/": b""}, method)
            client = self.start()
            self.assertEqual(200, client.load(archives.joined(self.package(), others)).status)
            here = self.value(client, ["here"])
            for name, content in contents.items():
                digest = self.value(client, ["ask", "sha256sum", f"{here}/{name}"]).split()[0]
                self.assertEqual(hashlib.sha256(content).hexdigest(), digest, name)
            self.value(client, ["run", "test", "-d", f"{here}/folder"])

    def test_files_keep_that_they_can_be_run(self) -> None:
        modes = {"tool": (0o100744, "-rwxr-xr-x"), "data": (0o100600, "-rw-r--r--"), "old": (0, "-rw-r--r--")}
        others = [archives.packed({name: b"x"}, mode=mode) for name, (mode, _) in modes.items()]
        client = self.start()
        self.assertEqual(200, client.load(archives.joined(self.package(), *others)).status)
        here = self.value(client, ["here"])
        for name, (_, shown) in modes.items():
            self.assertEqual(shown, self.value(client, ["ask", "ls", "-l", f"{here}/{name}"])[:10], name)

    def test_names_and_sizes_are_read_as_the_platform_reads_them(self) -> None:
        for package, name in archives.with_odd_names(self.module, self.source):
            client = self.start()
            self.assertEqual(200, client.load(package).status)
            self.value(client, ["run", "test", "-s", f"{self.value(client, ['here'])}/{name}"])

    def test_a_zip64_archive_is_unpacked(self) -> None:
        client = self.start()
        self.assertEqual(200, client.load(archives.zip64(self.package())).status)
        self.assert_serves(client)

    def test_packages_that_are_not_what_they_should_be_are_refused(self) -> None:
        client = self.start()
        for what, package in archives.refused():
            answer = client.load(package)
            self.assertEqual(400, answer.status, what)
            self.assertTrue(answer.json()["message"], what)
        self.assertEqual("blank", client.ready()["state"])
        # Whatever was left of one of them would be in the way of the next.
        good = archives.joined(self.package(), archives.packed({"aa": b"", "first": b"", "zeros": b""}))
        self.assertEqual(200, client.load(good).status)
        here = self.value(client, ["here"])
        for path in ("/evil", f"{here}/evil", f"{here}/../evil", f"{here}/bb"):
            self.value(client, ["run", "test", "!", "-e", path])


class WorkerCarriedTests(WorkerCase):
    """For a worker that carries its function, the module of steps, as one in an image of a user does."""

    def test_an_entry_that_is_null_is_the_one_that_the_worker_carries(self) -> None:
        client = self.start()
        answer = client.load(entry=None, labels={"function_id": "f-1", "function_version": 2})
        self.assertEqual(200, answer.status, answer)
        self.assertEqual(["e1", "f-1", 2], self.value(client, ["context"]))
        self.assert_serves(client)

    def test_neither_path_nor_package_goes_with_an_entry_that_is_null(self) -> None:
        client = self.start()
        self.assert_refused(400, client.load(self.package(), entry=None))
        self.assert_refused(400, client.load(path="/", entry=None))
        self.assertEqual("blank", client.ready()["state"])
        self.assertEqual(200, client.load(entry=None).status)
        self.assert_serves(client)

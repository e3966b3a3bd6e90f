"""Frames, logs, process tables, load lines and entries of a worker."""

from __future__ import annotations

import io
import json
import os
import pathlib
import struct
import zipfile
from typing import Any, ClassVar

import fixtures
import testtools

import funcplat.worker
from funcplat.worker import entry, frames, load, log, preload, tree


class FrameTest(testtools.TestCase):
    def test_a_call_is_fixed_fields_then_id_and_input(self) -> None:
        frame = frames.call(7, b"e-1", b"null")
        self.assertEqual((16, 7, 3), frames.CALL.unpack_from(frame))
        self.assertEqual(b"e-1null", frame[frames.CALL.size :])
        self.assertEqual(16 + frames.LENGTH, len(frame))

    def test_a_report_is_fixed_fields_then_result_and_message(self) -> None:
        frame = frames.report(
            7, frames.FAILURE, b'"x"', reason="disk_full", message="\u20ac", duration=0.5, flags=2
        )
        length, sequence, kind, reason, flags, duration, result = frames.REPORT.unpack_from(frame)
        self.assertEqual((7, frames.FAILURE, 2, 0.5, 3), (sequence, kind, flags, duration, result))
        self.assertEqual("disk_full", frames.REASONS[reason])
        self.assertEqual(b'"x"\xe2\x82\xac', frame[frames.REPORT.size :])
        self.assertEqual(length + frames.LENGTH, len(frame))

    def test_a_message_is_cut(self) -> None:
        frame = frames.report(1, frames.FAILURE, message="x" * 10000, reason="bad_arguments")
        self.assertEqual(frames.REPORT.size + frames.MAX_MESSAGE, len(frame))

    def test_fields_are_in_network_order_without_padding(self) -> None:
        self.assertEqual((13, 27), (frames.CALL.size, frames.REPORT.size))
        self.assertEqual(struct.calcsize("!IQB"), frames.CALL.size)


class LogTest(testtools.TestCase):
    def test_the_first_bytes_are_kept_and_the_rest_counted(self) -> None:
        output = log.Log(5)
        for data in (b"abc", b"def", b"", b"ghi"):
            output.write(data)
        self.assertEqual((b"abcde", 4), (bytes(output.data), output.dropped))


class TreeTest(testtools.TestCase):
    def test_children_are_found_in_a_process_table_whatever_their_names(self) -> None:
        stats = [b"10 (sh) S 1 10", b"11 (a) b) 1 (c) R 10 10", b"12 (x y) Z 10 10", b"13 () S 11 10"]
        self.assertEqual([11, 12], tree.children_in(stats, 10))
        self.assertEqual([13], tree.children_in(stats, 11))

    def test_a_process_that_does_not_exist_has_no_children(self) -> None:
        self.assertEqual([], tree.children(2**22 + 1))


class LoadLineTest(testtools.TestCase):
    LINE: ClassVar[dict[str, Any]] = {
        "secret": "s3cret",
        "entry": "main.main",
        "path": "/code",
        "import_timeout": 3,
        "max_result": 10,
        "max_log": 20,
    }

    def _parse(self, **fields: object) -> load.Revision:
        return load.parse_line(json.dumps(self.LINE | fields).encode(), 4)[1]

    def test_what_may_be_missing_has_defaults(self) -> None:
        revision = self._parse()
        self.assertEqual(
            (4, {}, None),
            (revision.concurrency, revision.environment, revision.function_id),
        )

    def test_the_secret_is_apart_from_what_handlers_get(self) -> None:
        secret, revision = load.parse_line(json.dumps(self.LINE).encode(), 4)
        self.assertEqual(b"s3cret", secret)
        self.assertNotIn("s3cret", repr(revision))

    def test_labels_become_the_context(self) -> None:
        revision = self._parse(labels={"function_id": "f", "function_version": 3, "other": 1})
        self.assertEqual(("f", 3), (revision.function_id, revision.function_version))

    def test_values_that_cannot_be_used_are_named(self) -> None:
        for name, value in (
            ("secret", "a b"),
            ("secret", "\u20ac"),
            ("secret", "x" * 256),
            ("entry", ".main"),
            ("entry", "main."),
            ("concurrency", True),
            ("path", "relative"),
            ("import_timeout", 0),
            ("max_log", -1),
            ("labels", []),
        ):
            error = self.assertRaises(load.LoadError, self._parse, **{name: value})
            self.assertIn(repr(name), str(error))

    def test_lines_that_are_no_objects_are_refused(self) -> None:
        for line in (b"", b"[]", b"{", b"[" * 100_000, b"\xff"):
            self.assertRaises(load.LoadError, load.parse_line, line, 1)


class UnpackTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path, "code")

    def _package(self, *members: tuple[str | zipfile.ZipInfo, bytes]) -> io.BytesIO:
        buffer = io.BytesIO(b"a line before\n")
        buffer.seek(0, io.SEEK_END)
        with zipfile.ZipFile(buffer, "a") as archive:
            for name, data in members:
                archive.writestr(name, data)
        return buffer

    def test_files_keep_that_they_can_be_run_and_nothing_else_of_their_mode(self) -> None:
        tool = zipfile.ZipInfo("bin/tool")
        tool.external_attr = 0o106755 << 16
        plain = zipfile.ZipInfo("./data//plain")
        plain.external_attr = 0o100000 << 16
        load.unpack(self._package((tool, b"x"), (plain, b"y"), ("empty/", b"")), str(self.root))
        self.assertEqual(0o755, (self.root / "bin/tool").stat().st_mode & 0o7777)
        self.assertEqual(0o644, (self.root / "data/plain").stat().st_mode & 0o7777)
        self.assertTrue((self.root / "empty").is_dir())

    def test_what_was_unpacked_before_an_error_is_removed(self) -> None:
        for bad in ("../x", "a/../b", "/x", "a\\b", ".", "main.py/x", "./main.py"):
            package = self._package(("main.py", b"x"), (bad, b"y"))
            self.assertRaises(load.LoadError, load.unpack, package, str(self.root))
            self.assertEqual([], os.listdir(self.root))

    def test_a_package_cut_short_is_refused(self) -> None:
        package = self._package(("main.py", b"x" * 1000)).getvalue()
        for size in (0, 10, 500, len(package) - 1):
            self.assertRaises(load.LoadError, load.unpack, io.BytesIO(package[:size]), str(self.root))


class EntryTest(testtools.TestCase):
    def test_a_plain_function_is_read_like_its_signature(self) -> None:
        def plain(a, /, b, c=1, *args, d, e=2, **rest):  # type: ignore[no-untyped-def]
            return locals()

        def decorated() -> None: ...

        decorated.__wrapped__ = plain  # type: ignore[attr-defined]
        fast, slow = entry.Entry.of(plain), entry.Entry.of(decorated)
        self.assertEqual({"b", "c", "d", "e"}, fast.names)
        self.assertEqual({"a", "b", "d"}, fast.required)
        for field in ("names", "required", "open_ended", "wants_context"):
            self.assertEqual(getattr(slow, field), getattr(fast, field), field)

    def test_a_method_and_an_object_can_be_entries(self) -> None:
        class Thing:
            def method(self, a: int) -> int:
                return a

            def __call__(self, b: int, context: object) -> int:
                return b

        method, thing = entry.Entry.of(Thing().method), entry.Entry.of(Thing())
        self.assertEqual(((), {"a": 1}), method.arguments({"a": 1}, {}))
        self.assertEqual(((), {"b": 1, "context": {"k": 1}}), thing.arguments({"b": 1}, {"k": 1}))

    def test_a_builtin_that_tells_nothing_is_called_as_it_is(self) -> None:
        function = entry.Entry.of(dict)
        self.assertEqual(((), {"a": 1}), function.arguments({"a": 1}, {"k": 1}))

    def test_an_input_that_is_no_object_is_refused(self) -> None:
        function = entry.Entry.of(lambda: None)
        for value in (1, "x", [1], True):
            error = self.assertRaises(entry.Failure, function.arguments, value, {})
            self.assertEqual("bad_arguments", error.reason)

    def test_a_positional_only_parameter_cannot_be_given_by_name(self) -> None:
        function = entry.Entry.of(lambda a, /: a)
        error = self.assertRaises(entry.Failure, function.arguments, {"a": 1}, {})
        self.assertIn("positional", error.message)
        self.assertEqual(((5,), {}), function.arguments({entry.POSITIONAL_INPUT: 5}, {}))

    def test_an_unhelpful_exception_is_named_by_its_type(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise SystemExit

        self.assertEqual("Odd", entry.text_of(Odd()))
        self.assertEqual("KeyError", entry.text_of(KeyError()))

    def test_results_are_compact_ascii(self) -> None:
        self.assertEqual(b'{"a":["\\u20ac",null]}', entry.encode({"a": ["\u20ac", None]}, 100))

    def test_a_failure_leaves_no_trace_in_later_results(self) -> None:
        inner: dict[str, object] = {}
        outer = {"inner": inner, "bad": {1}}
        inner["again"] = inner
        for _ in range(3):
            self.assertRaises(entry.Failure, entry.encode, outer, 100)
            self.assertRaises(entry.Failure, entry.encode, {"inner": [object()]}, 100)
        del inner["again"], outer["bad"]
        self.assertEqual(b'{"inner":{}}', entry.encode(outer, 100))

    def test_no_result_holds_a_number_that_json_lacks(self) -> None:
        for value in (float("nan"), [float("inf")], {"a": float("-inf")}, {float("nan"): 1}):
            error = self.assertRaises(entry.Failure, entry.encode, value, 100)
            self.assertEqual("result_not_json", error.reason)
            self.assertIn("NaN or infinity", error.message)


class PreloadTest(testtools.TestCase):
    def test_every_module_of_the_worker_is_hidden_from_functions(self) -> None:
        directory = pathlib.Path(funcplat.worker.__file__).parent
        modules = {f"funcplat.worker.{path.stem}" for path in directory.glob("[!_]*.py")}
        self.assertEqual(modules | {"funcplat", "funcplat.worker"}, set(preload.HIDDEN))

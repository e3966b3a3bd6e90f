"""The small parts of the process driver: options, user ids, files of workers, features."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Iterator

import fixtures
import testtools

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.base import Isolation
from funcplat.drivers.process import (
    cgroups,
    control,
    features,
    identity,
    interpreters,
    options,
    run_dir,
    sandbox,
    scratch,
    users,
)


class ImageTest(testtools.TestCase):
    default = ("*python*=default",)

    def test_names_of_old_runtimes_map_to_the_platforms_interpreter(self) -> None:
        for image in ("openstackqinling/python3-runtime:0.0.2", "funcplat/python3", "python"):
            self.assertEqual(interpreters.own(), options.interpreter(self.default, image))

    def test_names_of_nodejs_runtimes_map_to_the_node_in_path(self) -> None:
        (images,) = (option.default for option in options.OPTS if option.name == "images")
        with programs("node") as directory:
            for image in ("openstackqinling/nodejs-runtime", "funcplat/nodejs", "node:22-slim"):
                self.assertEqual(directory / "node", options.interpreter(images, image))
            self.assertEqual(interpreters.own(), options.interpreter(images, "funcplat/python3"))

    def test_a_name_that_is_not_in_path_is_told(self) -> None:
        with programs():
            error = self.assertRaises(errors.ImageUnknown, options.interpreter, ("*node*=node",), "nodejs")
        self.assertIn("'node', and there is no such program in PATH", error.message)

    def test_what_a_machine_allows_is_tried_with_the_platforms_own_if_functions_use_it(self) -> None:
        self.assertEqual(interpreters.own(), options.first_interpreter(["x=/opt/node", "*=default"]))
        self.assertEqual(interpreters.own(), options.first_interpreter([]))
        self.assertEqual(pathlib.Path("/opt/node"), options.first_interpreter(["x=/opt/node", "y=/z"]))

    def test_the_first_match_counts(self) -> None:
        images = ("*python3.13*=/opt/python3.13/bin/python3", "*python*=default")
        self.assertEqual(
            pathlib.Path("/opt/python3.13/bin/python3"), options.interpreter(images, "x/python3.13:1")
        )
        self.assertEqual(interpreters.own(), options.interpreter(images, "x/python3.12:1"))

    def test_an_unknown_image_names_the_patterns(self) -> None:
        error = self.assertRaises(errors.ImageUnknown, options.interpreter, self.default, "cobol:1959")
        self.assertIn("*python*", error.message)
        self.assertIn("cobol:1959", error.message)

    def test_an_entry_without_an_interpreter_matches_nothing(self) -> None:
        self.assertRaises(errors.ImageUnknown, options.interpreter, ("*python*",), "python")

    def test_the_platforms_interpreter_is_not_that_of_a_virtual_environment(self) -> None:
        self.assertFalse((interpreters.own().parent.parent / "pyvenv.cfg").exists())

    def test_every_option_explains_itself(self) -> None:
        for option in options.OPTS:
            self.assertGreater(len(option.help or ""), 40, option.name)


@contextlib.contextmanager
def programs(*names: str) -> Iterator[pathlib.Path]:
    """A PATH with these programs and no others."""
    with tempfile.TemporaryDirectory() as directory, fixtures.EnvironmentVariable("PATH", directory):
        for name in names:
            path = pathlib.Path(directory, name)
            path.touch(0o755)
        yield pathlib.Path(directory)


class InterpreterTest(testtools.TestCase):
    def test_only_tested_versions_are_taken(self) -> None:
        path = pathlib.Path("/usr/bin/x")
        for cls, version in ((interpreters.Python, "3.11.0rc1"), (interpreters.Node, "18.0.0-nightly")):
            cls(path, version).check()
        for cls, version in ((interpreters.Python, "3.10.9"), (interpreters.Node, "17.9.1")):
            error = self.assertRaises(errors.DriverError, cls(path, version).check)
            self.assertIn(f"{path} is {cls.language} {version}", error.message)

    def test_the_platforms_own_is_not_asked(self) -> None:
        found = interpreters.identify(interpreters.own())
        self.assertEqual(("Python", platform.python_version()), (found.language, found.version))


class EndTest(testtools.TestCase):
    def test_the_end_of_a_supervisor_below_an_init_is_told_as_its_own(self) -> None:
        for status in (9, 137 << 8):
            self.assertEqual("signal SIGKILL", control._describe(status, 0))
            self.assertEqual("signal SIGKILL, out of memory", control._describe(status, 1))
        self.assertEqual("exit code 1", control._describe(1 << 8, 1))


class UsersTest(testtools.TestCase):
    def test_pairs_do_not_overlap_and_a_new_worker_gets_fresh_ones(self) -> None:
        pairs = users.Users(1000, 8)
        self.assertEqual([1000, 1002], [pairs.take(), pairs.take()])
        pairs.give(1000)
        self.assertEqual([1004, 1006, 1000], [pairs.take() for _ in range(3)])

    def test_no_free_pair_is_an_error(self) -> None:
        pairs = users.Users(1000, 2)
        pairs.take()
        self.assertRaises(OSError, pairs.take)


class FilesTestCase(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="run-"))
        self.addCleanup(shutil.rmtree, self.directory)


class RunDirTest(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_dir = run_dir.RunDir(self.directory)
        self.run_dir.make()
        self.files = self.run_dir.files("w1")

    def test_nobody_else_may_enter(self) -> None:
        self.assertEqual(0o40700, self.directory.stat().st_mode)

    def test_a_worker_is_alive_as_long_as_somebody_holds_its_listener(self) -> None:
        self.assertFalse(self.files.alive())
        with self.files.listen():
            self.assertTrue(self.files.alive())
        self.assertFalse(self.files.alive())
        self.assertEqual([self.files], list(self.run_dir.workers()))
        self.files.remove()
        self.assertEqual([], list(self.run_dir.workers()))

    def test_a_full_backlog_is_alive_too(self) -> None:
        with self.files.listen() as listener:
            listener.listen(0)
            probes = [self.files.alive() for _ in range(5)]
        self.assertEqual([True] * 5, probes)

    def test_two_cannot_listen_for_one_worker(self) -> None:
        with self.files.listen():
            self.assertRaises(FileExistsError, self.files.listen)
            self.assertTrue(self.files.alive())

    def test_a_saved_handle_comes_back_and_a_broken_one_gives_the_address(self) -> None:
        handle = base.Handle("w1", base.Address(socket=str(self.files.socket)), {"pid": 1})
        self.files.save(handle)
        self.assertEqual(handle, self.files.handle())
        self.files.record.write_text("{")
        self.assertEqual({}, self.files.handle().data)
        self.assertEqual(handle.address, self.files.handle().address)

    def test_an_id_that_is_no_file_name_is_refused(self) -> None:
        for worker_id in ("", "../x", "a/b", "-x", "x\n", ".hidden", "x" * 65):
            self.assertRaises(errors.DriverError, self.run_dir.files, worker_id)

    def test_a_path_that_no_socket_can_have_is_refused_with_a_way_out(self) -> None:
        error = self.assertRaises(errors.DriverError, run_dir.RunDir(self.directory / ("d" * 90)).make)
        self.assertIn("run_dir", error.message)

    def test_names_of_installations_differ_and_are_short(self) -> None:
        self.assertNotEqual(run_dir.short_name("a"), run_dir.short_name("b"))
        self.assertEqual(8, len(run_dir.short_name("a")))


class ScratchTest(FilesTestCase):
    def test_a_directory_is_made_with_a_copy_of_the_code_and_removed(self) -> None:
        code = self.directory / "code"
        code.mkdir()
        (code / "main.py").write_text("x = 1")
        place = scratch.Scratch(str(self.directory / "scratch"))
        made = pathlib.Path(place.make("w1", None, str(code)))
        self.assertEqual("x = 1", (made / "code/main.py").read_text())
        self.assertEqual({"w1"}, place.names())
        place.remove("w1")
        place.remove("w1")
        place.close()
        self.assertFalse((self.directory / "scratch").exists())

    def test_a_place_that_leads_elsewhere_is_refused(self) -> None:
        (self.directory / "scratch").symlink_to("/tmp")
        place = scratch.Scratch(str(self.directory / "scratch"))
        self.assertRaises(OSError, place.make, "w1", None, None)


class IdentityTest(testtools.TestCase):
    def test_a_process_is_named_beyond_its_pid(self) -> None:
        own = identity.of(os.getpid())
        self.assertEqual(json.loads(json.dumps(own)), own)
        self.assertTrue(identity.is_alive(f"{own['pid']}-{own['started']}-0"))
        self.assertFalse(identity.is_alive(f"{own['pid']}-{own['started'] + 1}-0"))
        self.assertFalse(identity.is_alive("nonsense"))

    def test_a_dead_process_that_nobody_waited_for_is_dead(self) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertRaises(ProcessLookupError, identity.of, pid)
        os.waitpid(pid, 0)


class LadderTest(testtools.TestCase):
    def test_root_and_others_have_different_steps_down(self) -> None:
        self.assertEqual(["range", "ids", "plain-ids"], [each.value for each in sandbox.ladder(True, True)])
        self.assertEqual(["single", "plain"], [each.value for each in sandbox.ladder(False, True)])

    def test_without_namespaces_the_last_step_is_left(self) -> None:
        self.assertEqual([sandbox.Mode.PLAIN_IDS], sandbox.ladder(True, False))
        self.assertEqual([sandbox.Mode.PLAIN], sandbox.ladder(False, False))

    def test_scratch_space_is_at_most_half_of_the_memory(self) -> None:
        birth = sandbox.Birth(None, None, 32 << 20, True, 8, True, 64 << 20)
        self.assertEqual(16 << 20, sandbox.scratch_size(birth))


class FeatureTest(testtools.TestCase):
    nothing = cgroups.Cgroups((), dict.fromkeys(cgroups.CONTROLLERS, "no such hierarchy"))
    version_2 = cgroups.Cgroups((cgroups.Hierarchy(2, "/x", frozenset(cgroups.CONTROLLERS)),), {})

    def lines(
        self, mode: sandbox.Mode, groups: cgroups.Cgroups, host_network: bool = False
    ) -> dict[str, Isolation]:
        found = list(features.describe(mode, [("range", "not permitted")], groups, host_network))
        for feature in found:
            self.assertNotEqual("", feature.detail)
        return {feature.name: feature.isolation for feature in found}

    def test_with_everything_everything_is_enforced(self) -> None:
        lines = self.lines(sandbox.Mode.RANGE, self.version_2)
        names = {"user", "mounts", "pids", "network", "seccomp", "cpu", "memory", "processes", "disk"}
        self.assertEqual(dict.fromkeys(names, Isolation.ENFORCED), lines)

    def test_without_anything_nothing_is_pretended(self) -> None:
        lines = self.lines(sandbox.Mode.PLAIN, self.nothing)
        enforced = {name for name, isolation in lines.items() if isolation is Isolation.ENFORCED}
        self.assertEqual({"seccomp"}, enforced)
        for name in ("user", "mounts", "pids", "network", "cpu"):
            self.assertEqual(Isolation.NONE, lines[name])

    def test_the_hosts_network_is_no_isolation(self) -> None:
        self.assertEqual(Isolation.NONE, self.lines(sandbox.Mode.RANGE, self.version_2, True)["network"])

    def test_an_ordinary_user_is_told_what_root_would_add(self) -> None:
        self.assertEqual(Isolation.PARTIAL, self.lines(sandbox.Mode.SINGLE, self.nothing)["user"])


class TranslationTest(testtools.TestCase):
    def test_a_full_machine_has_no_capacity_and_other_failures_are_errors(self) -> None:
        for number in (11, 12, 28, 87):
            self.assertIsInstance(control.translate(number, "x"), errors.NoCapacity)
        self.assertNotIsInstance(control.translate(13, "x"), errors.NoCapacity)

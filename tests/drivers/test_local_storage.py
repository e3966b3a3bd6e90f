"""The storage driver local: the kit, and what is its own."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pathlib
import stat
import subprocess
import sys
import time
from unittest import mock

import fixtures
import testtools

from funcplat import errors
from funcplat.storage import local
from funcplat.storage.base import PackageInfo
from funcplat.testing.storage import StorageDriverTests
from funcplat.testing.storage_case import StorageCase

DATA = b"code" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


class LocalStorageTests(StorageDriverTests, testtools.TestCase):
    driver_class = local.LocalDriver

    def damage(self, digest: str) -> None:
        path = self.context.state_dir / "packages" / digest[:2] / digest
        path.write_bytes(path.read_bytes()[:-1] + b"!")


class Case(StorageCase, testtools.TestCase):
    driver_class = local.LocalDriver

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger("funcplat"))
        self.directory = self.context.state_dir / "packages"

    def put(self) -> None:
        self.driver.put(DIGEST, len(DATA), io.BytesIO(DATA), deadline=60)

    def temporaries(self) -> list[str]:
        return os.listdir(self.directory / "tmp")


class PlaceTests(Case):
    def test_packages_lie_by_digest_for_the_server_alone(self) -> None:
        self.put()
        path = self.directory / DIGEST[:2] / DIGEST
        self.assertEqual(DATA, path.read_bytes())
        self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode))
        for directory in (self.directory, path.parent, self.directory / "tmp"):
            self.assertEqual(0o700, stat.S_IMODE(directory.stat().st_mode))
        self.assertEqual([], self.temporaries())

    def test_foreign_files_are_not_packages(self) -> None:
        self.put()
        for name in ("README", "ab/notes", f"xx/{DIGEST}", "ab/" + "c" * 64):
            path = self.directory / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        self.assertEqual([PackageInfo(DIGEST, len(DATA))], self.driver.list_packages(deadline=60))


class OtherDirectoryTests(Case):
    def make_options(self) -> dict[str, str]:
        return {"directory": str(self.context.state_dir / "a" / "b")}

    def test_the_directory_can_be_elsewhere(self) -> None:
        self.put()
        self.assertTrue((self.context.state_dir / "a" / "b" / DIGEST[:2] / DIGEST).is_file())


class DurabilityTests(Case):
    def test_file_and_directories_are_synced_before_put_returns(self) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            synced.append(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name)
            real(descriptor)

        with mock.patch.object(os, "fsync", fsync):
            self.put()
        self.assertTrue(synced[0].startswith("put-"), synced)
        self.assertEqual(["packages", DIGEST[:2]], synced[1:])

    def test_a_put_killed_at_any_step_leaves_the_package_whole_or_not_at_all(self) -> None:
        code = (
            "import io, os, sys, types, pathlib, hashlib\n"
            "from funcplat.storage import local\n"
            "from funcplat.drivers.base import Context\n"
            "step, calls = int(sys.argv[2]), [0]\n"
            "def audit(event, args):\n"
            "    if event in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'fcntl.flock'):\n"
            "        calls[0] += 1\n"
            "        if calls[0] == step: os.kill(os.getpid(), 9)\n"
            "context = Context('o', pathlib.Path(sys.argv[1]), False, None)\n"
            "driver = local.LocalDriver(types.SimpleNamespace(directory=None), context)\n"
            "data = b'code' * 1000\n"
            "sys.addaudithook(audit)\n"
            "driver.put(hashlib.sha256(data).hexdigest(), len(data), io.BytesIO(data), 60)\n"
        )
        for step in range(1, 30):
            arguments = [sys.executable, "-c", code, str(self.context.state_dir), str(step)]
            done = subprocess.run(arguments, capture_output=True, text=True)
            info = self.driver.exists(DIGEST, deadline=60)
            self.assertIn(info, (None, PackageInfo(DIGEST, len(DATA))))
            if info is not None:
                with self.driver.open(DIGEST, deadline=60) as chunks:
                    self.assertEqual(DATA, b"".join(chunks))
                self.driver.delete(DIGEST, deadline=60)
            if done.returncode == 0:
                break
        else:
            self.fail("put never came to its end")
        self.assertGreater(step, 4)


class LeftoverTests(Case):
    def leave(self, age: float) -> pathlib.Path:
        path = self.directory / "tmp" / "put-left"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    def test_what_a_crash_left_long_ago_goes_with_the_next_look(self) -> None:
        for look in (self.driver.check, lambda: self.driver.list_packages(deadline=60)):
            path = self.leave(age=4000)
            look()
            self.assertFalse(path.exists())
        self.assertIn("put-left", self.log.output)

    def test_what_is_young_stays(self) -> None:
        path = self.leave(age=3000)
        self.driver.check()
        self.assertTrue(path.exists())

    def test_a_running_put_keeps_its_file_however_old_it_is(self) -> None:
        other = self.make_driver()
        owner = self

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                for name in owner.temporaries():
                    os.utime(owner.directory / "tmp" / name, (1, 1))
                other.list_packages(deadline=60)
                other.check()
                return super().read(size)

        self.driver.put(DIGEST, len(DATA), Slow(DATA), deadline=60)
        self.assertEqual(PackageInfo(DIGEST, len(DATA)), self.driver.exists(DIGEST, deadline=60))


class TroubleTests(Case):
    def trouble(self, number: int, target: object, name: str, call: str = "put") -> errors.DriverError:
        error = OSError(number, os.strerror(number), "/somewhere")
        with mock.patch.object(target, name, side_effect=error):
            raised = self.assertRaises(errors.DriverError, getattr(self, call))
        self.assertIs(error, raised.__cause__)
        return raised

    def check(self) -> None:
        self.driver.check()

    def test_a_full_disk_says_what_to_do_and_leaves_nothing(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            raised = self.trouble(number, local, "_write_all")
            self.assertNotIsInstance(raised, errors.DriverUnavailable)
            self.assertIn("/somewhere", raised.message)
            self.assertRegex(raised.message, "free space|quota")
        self.assertEqual([], self.temporaries())
        self.assertIsNone(self.driver.exists(DIGEST, deadline=60))

    def test_a_failed_sync_leaves_nothing(self) -> None:
        raised = self.trouble(errno.EIO, os, "fsync")
        self.assertIsInstance(raised, errors.DriverUnavailable)
        self.assertEqual([], self.temporaries())
        self.assertIsNone(self.driver.exists(DIGEST, deadline=60))

    def test_missing_rights_and_read_only_disks_say_what_to_do(self) -> None:
        for number, words in ((errno.EACCES, "right"), (errno.EPERM, "right"), (errno.EROFS, "writable")):
            raised = self.trouble(number, local.tempfile, "mkstemp")
            self.assertIn(words, raised.message)
            raised = self.trouble(number, local.tempfile, "TemporaryFile", "check")
            self.assertIn(words, raised.message)

    def test_what_passes_can_be_tried_again(self) -> None:
        for number in (errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EAGAIN):
            self.assertIsInstance(
                self.trouble(number, local.tempfile, "mkstemp"),
                errors.DriverUnavailable,
                errno.errorcode[number],
            )

    def test_a_file_in_the_place_of_the_directory_is_refused_at_start(self) -> None:
        self.directory.rename(self.directory.with_name("old"))
        self.directory.touch()
        raised = self.assertRaises(errors.DriverError, self.driver.check)
        self.assertIn(str(self.directory), raised.message)

    def test_a_directory_that_vanished_is_trouble_and_not_an_empty_store(self) -> None:
        self.directory.rename(self.directory.with_name("old"))
        self.assertRaises(errors.DriverError, self.driver.list_packages, deadline=60)

    def test_what_the_upload_raises_is_not_the_drivers(self) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise ConnectionResetError("the client went away")

        self.assertRaises(ConnectionResetError, self.driver.put, DIGEST, 4, Broken(), deadline=60)
        self.assertEqual([], self.temporaries())

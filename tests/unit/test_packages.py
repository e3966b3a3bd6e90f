"""Spools, unpacking and the cache of unpacked packages, on a real file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import pathlib
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from unittest import mock

import fixtures
import hypothesis
import testtools
from oslo_config import cfg

from funcplat import conf, errors
from funcplat.core import codecache, packages
from tests.unit.crafted import DEFLATED, DIRECTORY, Member, archive
from tests.unit.test_archives import archives

MIB = 1024 * 1024
LIMITS = packages.PackageLimits(max_size=8 * MIB, members=50, depth=8, unpacked_size=32 * MIB, ratio=200)
PACKAGE = archive(
    [
        Member(b"main.py", b"def main():\n    return 1\n"),
        Member(b"bin/tool", b"#!/bin/sh\n", mode=0o104755),
        Member(b"data/", mode=DIRECTORY),
        Member(b"data/deep/table", b"x" * 600_000, DEFLATED, mode=0),
    ]
)
DIGEST = hashlib.sha256(PACKAGE).hexdigest()


class Directory(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)


class LimitsTests(testtools.TestCase):
    def test_limits_come_from_the_configuration(self) -> None:
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        options([], default_config_files=[])
        expected = packages.PackageLimits(50 * MIB, 20000, 32, 512 * MIB, 200.0)
        self.assertEqual(expected, packages.PackageLimits.from_conf(options))


class SpoolTests(Directory):
    def test_what_was_written_is_hashed_and_can_be_read(self) -> None:
        with packages.Spool(self.directory / "new", 100) as spool:
            for chunk in (b"ab", b"", b"c"):
                spool.write(chunk)
            spooled = spool.finish()
            self.assertEqual(b"abc", spooled.file.read())
        self.assertEqual(3, spooled.size)
        self.assertEqual(hashlib.sha256(b"abc").hexdigest(), spooled.sha256)
        self.assertEqual(hashlib.md5(b"abc").hexdigest(), spooled.md5)

    def test_more_than_the_limit_is_refused_at_once_and_not_written(self) -> None:
        with packages.Spool(self.directory, 3) as spool:
            spool.write(b"abc")
            self.assertRaises(errors.TooLarge, spool.write, b"d")
            self.assertEqual(b"abc", spool._file.seek(0) or spool._file.read())

    def test_nothing_has_a_name_and_closing_twice_is_a_no_op(self) -> None:
        spool = packages.Spool(self.directory, 100)
        spool.write(b"abc")
        self.assertEqual([], os.listdir(self.directory))
        spool.close()
        spool.close()

    def test_a_full_disk_is_told_as_overload(self) -> None:
        with packages.Spool(self.directory, MIB) as spool:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with mock.patch.object(spool, "_file") as file:
                file.write.side_effect = full
                self.assertRaises(errors.Overloaded, spool.write, b"abc")


class UnpackTests(Directory):
    def unpacked(self, data: bytes = PACKAGE) -> pathlib.Path:
        target = self.directory / "code"
        packages.unpack([data[:100], data[100:]], target, LIMITS)
        return target

    def mode(self, path: pathlib.Path) -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    def test_files_have_their_content_and_plain_modes_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        code = self.unpacked()
        self.assertEqual(b"x" * 600_000, (code / "data/deep/table").read_bytes())
        self.assertEqual(
            [0o755, 0o644, 0o755, 0o755, 0o755, 0o644],
            [
                self.mode(code / name)
                for name in (".", "main.py", "bin", "bin/tool", "data/deep", "data/deep/table")
            ],
        )
        self.assertEqual(["code"], os.listdir(self.directory))

    def test_times_are_those_of_the_archive(self) -> None:
        stamp = b"UT\5\0\1" + (1_600_000_001).to_bytes(4, "little")
        code = self.unpacked(archive([Member(b"exact", extra=stamp), Member(b"coarse")]))
        self.assertEqual(1_600_000_001, (code / "exact").stat().st_mtime)
        self.assertEqual(
            time.struct_time((1980, 1, 1, 0, 0, 0, 1, 1, 0)), time.gmtime((code / "coarse").stat().st_mtime)
        )

    def test_a_bad_package_leaves_nothing(self) -> None:
        bad = archive([Member(b"main.py", b"fine"), Member(b"a", b"xy", crc=1)])
        self.assertRaises(errors.PackageLies, self.unpacked, bad)
        self.assertEqual([], os.listdir(self.directory))

    def test_a_package_that_breaks_off_leaves_nothing(self) -> None:
        def chunks() -> Iterator[bytes]:
            yield PACKAGE[:50]
            raise errors.DriverUnavailable("gone")

        self.assertRaises(
            errors.DriverUnavailable, packages.unpack, chunks(), self.directory / "code", LIMITS
        )
        self.assertEqual([], os.listdir(self.directory))

    def test_an_existing_directory_is_not_touched(self) -> None:
        (self.directory / "code").mkdir()
        (self.directory / "code" / "mine").touch()
        self.assertRaises(OSError, self.unpacked)
        self.assertEqual(["mine"], os.listdir(self.directory / "code"))

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(archives())
    def test_what_zipfile_writes_unpacks_to_the_same_content(
        self, made: tuple[bytes, dict[str, bytes]]
    ) -> None:
        with fixtures.TempDir() as temporary:
            root = pathlib.Path(temporary.path) / "code"
            packages.unpack([made[0]], root, LIMITS)
            found = {
                str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
            }
        self.assertEqual(made[1], found)
        with zipfile.ZipFile(io.BytesIO(made[0])) as file:
            self.assertEqual({name: file.read(name) for name in file.namelist()}, found)


class CacheCase(Directory):
    def setUp(self) -> None:
        super().setUp()
        self.opened = 0
        self.cache = packages.CodeCache(self.directory, LIMITS, 10 * MIB)

    @contextlib.contextmanager
    def open_package(self) -> Iterator[Iterator[bytes]]:
        self.opened += 1
        yield iter([PACKAGE])

    def digest(self, number: int) -> str:
        return f"{number:064x}"

    def fill(self, number: int, age: float = 10_000) -> pathlib.Path:
        path = self.cache.path(self.digest(number), self.open_package)
        self.make_old(number, age)
        return path

    def make_old(self, number: int, age: float = 10_000) -> None:
        used_at = time.time() - age
        os.utime(self.directory / f"{self.digest(number)}.use", (used_at, used_at))


class CacheTests(CacheCase):
    def test_the_second_call_opens_nothing(self) -> None:
        first = self.cache.path(DIGEST, self.open_package)
        self.assertEqual(first, self.cache.path(DIGEST, self.open_package))
        self.assertTrue((first / "main.py").is_file())
        self.assertEqual(1, self.opened)

    def test_threads_that_ask_at_once_unpack_once(self) -> None:
        entered, release = threading.Event(), threading.Event()

        @contextlib.contextmanager
        def slow() -> Iterator[Iterator[bytes]]:
            entered.set()
            release.wait(30)
            with self.open_package() as chunks:
                yield chunks

        found: list[pathlib.Path] = []
        threads = [
            threading.Thread(target=lambda: found.append(self.cache.path(DIGEST, slow))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        entered.wait(30)
        release.set()
        for thread in threads:
            thread.join(30)
        self.assertEqual((8, 1, 1), (len(found), len(set(found)), self.opened))

    def test_another_process_finds_what_was_unpacked(self) -> None:
        path = self.cache.path(DIGEST, self.open_package)
        code = (
            "import pathlib, sys\n"
            "from funcplat.core import packages\n"
            "limits = packages.PackageLimits(1, 1, 1, 1, 1.0)\n"
            "cache = packages.CodeCache(pathlib.Path(sys.argv[1]), limits, 1)\n"
            "print(cache.path(sys.argv[2], None))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.directory, DIGEST], capture_output=True, text=True
        )
        self.assertEqual((f"{path}\n", ""), (done.stdout, done.stderr))

    def test_after_a_failure_the_next_caller_tries_again(self) -> None:
        @contextlib.contextmanager
        def broken() -> Iterator[Iterator[bytes]]:
            raise errors.PackageMissing("lost")
            yield

        self.assertRaises(errors.PackageMissing, self.cache.path, DIGEST, broken)
        self.assertTrue(self.cache.path(DIGEST, self.open_package).is_dir())

    def test_a_directory_of_an_earlier_boot_is_made_anew(self) -> None:
        path = self.cache.path(DIGEST, self.open_package)
        (path / "main.py").write_bytes(b"")
        self.cache._boot = "another"
        self.cache.path(DIGEST, self.open_package)
        self.assertEqual(b"def main():\n    return 1\n", (path / "main.py").read_bytes())

    def test_removal_is_idempotent_and_leaves_nothing(self) -> None:
        self.cache.path(DIGEST, self.open_package)
        self.cache.remove(DIGEST)
        self.cache.remove(DIGEST)
        self.assertEqual([], os.listdir(self.directory))

    def test_workers_of_other_users_may_enter_but_not_list(self) -> None:
        path = self.cache.path(DIGEST, self.open_package)
        self.assertEqual(0o711, stat.S_IMODE(self.directory.stat().st_mode))
        self.assertEqual(0o755, stat.S_IMODE(path.stat().st_mode))

    def test_a_digest_that_is_a_path_is_refused(self) -> None:
        for digest in ("../x", "", "/etc", DIGEST.upper()):
            self.assertRaises(ValueError, self.cache.path, digest, self.open_package)


class SweepTests(CacheCase):
    def test_the_least_recently_used_go_first_until_the_rest_fits(self) -> None:
        paths = [self.fill(number, age=10_000 - number) for number in range(4)]
        use = codecache._disk_usage(paths[0])
        packages.CodeCache(self.directory, LIMITS, 2 * use).sweep(set())
        self.assertEqual([False, False, True, True], [path.exists() for path in paths])

    def test_using_a_directory_makes_it_young(self) -> None:
        paths = [self.fill(number) for number in range(2)]
        self.cache.path(self.digest(0), self.open_package)
        packages.CodeCache(self.directory, LIMITS, 0).sweep(set())
        self.assertEqual([True, False], [path.exists() for path in paths])

    def test_what_is_in_use_stays_however_much_it_is(self) -> None:
        paths = [self.fill(number) for number in range(2)]
        packages.CodeCache(self.directory, LIMITS, 0).sweep({self.digest(1)})
        self.assertEqual([False, True], [path.exists() for path in paths])

    def test_everything_that_fits_stays(self) -> None:
        path = self.fill(0)
        self.cache.sweep(set())
        self.assertTrue(path.exists())

    def test_leftovers_of_a_killed_unpack_go(self) -> None:
        code = (
            "import contextlib, os, pathlib, sys\n"
            "from funcplat.core import packages, unpacking\n"
            "limits = packages.PackageLimits(10**7, 50, 8, 10**8, 200.0)\n"
            "cache = packages.CodeCache(pathlib.Path(sys.argv[1]), limits, 10**9)\n"
            "unpacking._write = lambda *_: os.kill(os.getpid(), 9)\n"
            "package = pathlib.Path(sys.argv[3]).read_bytes()\n"
            "cache.path(sys.argv[2], lambda: contextlib.nullcontext(iter([package])))\n"
        )
        package = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / "package.zip"
        package.write_bytes(PACKAGE)
        arguments = [self.directory, self.digest(0), package]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
        self.assertEqual(-9, done.returncode, done.stderr)
        leftovers = [name for name in os.listdir(self.directory) if name.startswith(".")]
        self.assertEqual(1, len(leftovers))
        self.cache.sweep(set())
        self.assertEqual([], os.listdir(self.directory))

    def test_a_running_unpack_is_left_alone(self) -> None:
        @contextlib.contextmanager
        def swept_meanwhile() -> Iterator[Iterator[bytes]]:
            def chunks() -> Iterator[bytes]:
                yield PACKAGE
                (self.directory / f".{DIGEST}.running").mkdir()
                os.utime(self.directory / f"{DIGEST}.use", (1, 1))
                self.cache.sweep(set())

            yield chunks()

        self.assertTrue(self.cache.path(DIGEST, swept_meanwhile).is_dir())
        self.assertTrue((self.directory / f".{DIGEST}.running").is_dir())

    def test_a_sweep_of_nothing_does_nothing(self) -> None:
        packages.CodeCache(self.directory / "missing", LIMITS, 0).sweep(set())

"""The promises of a store's packages, as tests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import BinaryIO, ClassVar, cast

from funcplat import errors
from funcplat.storage.base import PackageInfo, StorageDriver
from funcplat.testing.storage_case import DEADLINE, StorageCase
from funcplat.testing.uploads import MIB, ReaderBroke, Upload, content, digest_of

MAX_CHUNK = MIB
"""Bytes of a chunk that `open` may give."""

MAX_READ = 8 * MIB
"""Bytes that a driver may ask an upload for at once."""

MAX_MEMORY = 24 * MIB
"""Bytes of memory that a driver may take for a package of 65 MiB."""


class PackageTests(StorageCase):
    """Capability.PACKAGES: put, open, delete, exists, list_packages."""

    LARGE: ClassVar[int] = 65 * MIB

    # -- keeping ---------------------------------------------------------------------------

    def test_what_was_put_can_be_opened(self) -> None:
        for data in (b"x", b"PK\5\6" + bytes(18), bytes(range(256)) * 5000):
            self.assertEqual(data, self._get(self._put(data)))

    def test_an_empty_package_can_be_kept(self) -> None:
        digest = self._put(b"")
        self.assertEqual(b"", self._get(digest))
        self.assertEqual(PackageInfo(digest, 0), self.driver.exists(digest, deadline=DEADLINE))

    def test_a_package_exists_with_its_size_once_it_was_put(self) -> None:
        digest = hashlib.sha256(b"code").hexdigest()
        self.assertIsNone(self.driver.exists(digest, deadline=DEADLINE))
        self._put(b"code")
        self.assertEqual(PackageInfo(digest, 4), self.driver.exists(digest, deadline=DEADLINE))

    def test_the_list_has_every_package_once(self) -> None:
        self.assertEqual([], list(self.driver.list_packages(deadline=DEADLINE)))
        kept = {PackageInfo(self._put(b"x" * size), size) for size in (0, 1, 1000)}
        self._put(b"x")
        found = list(self.driver.list_packages(deadline=DEADLINE))
        self.assertEqual(3, len(found))
        self.assertEqual(kept, set(found))

    def test_another_driver_of_the_same_store_finds_what_was_put(self) -> None:
        digest = self._put(b"code")
        self.driver.close()
        other = self.make_driver()
        self.assertEqual(b"code", self._get(digest, other))
        self.assertEqual([PackageInfo(digest, 4)], list(other.list_packages(deadline=DEADLINE)))

    def test_putting_again_is_a_success(self) -> None:
        self.assertEqual(self._put(b"code"), self._put(b"code"))
        self.assertEqual(b"code", self._get(self._put(b"code")))

    def test_putting_the_same_package_at_once_is_a_success(self) -> None:
        data = content(0, 3 * MIB)
        other = self.make_driver()
        digest = hashlib.sha256(data).hexdigest()
        drivers = [self.driver, other] * 4
        self._together(*(self._putter(driver, digest, data) for driver in drivers))
        self.assertEqual(data, self._get(digest))
        self.assertEqual([PackageInfo(digest, len(data))], list(self.driver.list_packages(deadline=DEADLINE)))

    def test_different_packages_put_at_once_stay_apart(self) -> None:
        datas = [content(16 * number, MIB) for number in range(8)]
        digests = [hashlib.sha256(data).hexdigest() for data in datas]
        self._together(*(self._putter(self.driver, *pair) for pair in zip(digests, datas, strict=True)))
        self.assertEqual(datas, [self._get(digest) for digest in digests])

    def _putter(self, driver: StorageDriver, digest: str, data: bytes) -> Callable[[], None]:
        upload = cast(
            BinaryIO, Upload(len(data), 64 * 1024) if data == content(0, len(data)) else io.BytesIO(data)
        )
        return lambda: driver.put(digest, len(data), upload, deadline=DEADLINE)

    # -- streaming -------------------------------------------------------------------------

    def test_a_large_package_is_streamed_in(self) -> None:
        upload, digest = Upload(self.LARGE), digest_of(self.LARGE)
        with self._flat_memory("put"):
            self.driver.put(digest, self.LARGE, cast(BinaryIO, upload), deadline=DEADLINE)
        self.assertLessEqual(upload.largest_read, MAX_READ, "put asks for too much at once")
        self.assertEqual(PackageInfo(digest, self.LARGE), self.driver.exists(digest, deadline=DEADLINE))

    def test_a_large_package_is_streamed_out_in_chunks(self) -> None:
        digest = digest_of(self.LARGE)
        self.driver.put(digest, self.LARGE, cast(BinaryIO, Upload(self.LARGE)), deadline=DEADLINE)
        sha256, largest = hashlib.sha256(), 0
        with self._flat_memory("open"), self.driver.open(digest, deadline=DEADLINE) as chunks:
            for chunk in chunks:
                sha256.update(chunk)
                largest = max(largest, len(chunk))
        self.assertEqual(digest, sha256.hexdigest())
        self.assertLessEqual(largest, MAX_CHUNK, "open gives chunks that are too large")

    @contextlib.contextmanager
    def _flat_memory(self, what: str) -> Iterator[None]:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            yield
            taken = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        self.assertLess(taken, MAX_MEMORY, f"{what} holds the package in memory instead of streaming it")

    def test_an_upload_that_gives_little_at_a_time_is_read_to_its_end(self) -> None:
        upload, digest = Upload(100_000, step=7_001), digest_of(100_000)
        self.driver.put(digest, 100_000, cast(BinaryIO, upload), deadline=DEADLINE)
        self.assertEqual(content(0, 100_000), self._get(digest))

    def test_several_readers_read_at_once(self) -> None:
        data = content(0, 3 * MIB)
        digest = self._put(data)
        self._together(*[lambda: self.assertEqual(data, self._get(digest))] * 6)

    def test_a_reader_may_leave_early(self) -> None:
        digest = self._put(content(0, 3 * MIB))
        with self.driver.open(digest, deadline=DEADLINE) as chunks:
            self.assertTrue(content(0, 3 * MIB).startswith(next(iter(chunks))))
        with self.driver.open(digest, deadline=DEADLINE):
            pass

    # -- refusing --------------------------------------------------------------------------

    def test_bytes_of_another_digest_are_refused_and_leave_nothing(self) -> None:
        digest = hashlib.sha256(b"code").hexdigest()
        put = self._offer(digest, 4, io.BytesIO(b"c0de"))
        self._raises(errors.PackageCorrupt, put, "put of bytes with another digest")
        self._assert_nothing_kept(digest)

    def test_another_number_of_bytes_is_refused_and_leaves_nothing(self) -> None:
        data = content(0, 2 * MIB)
        digest = hashlib.sha256(data).hexdigest()
        for size in (0, 1, len(data) - 1, len(data) + 1):
            put = self._offer(digest, size, io.BytesIO(data))
            self._raises(errors.PackageCorrupt, put, f"put of {len(data)} bytes announced as {size}")
            self._assert_nothing_kept(digest)

    def test_a_refused_put_does_not_touch_the_package_that_is_there(self) -> None:
        digest = self._put(b"code")
        put = self._offer(digest, 4, io.BytesIO(b"c0de"))
        self._raises(errors.PackageCorrupt, put, "put of bytes with another digest")
        self.assertEqual(b"code", self._get(digest))

    def test_an_upload_that_breaks_off_leaves_nothing(self) -> None:
        size = 3 * MIB
        digest = digest_of(size)
        for breaks_at in (0, MIB, size):
            upload = cast(BinaryIO, Upload(size, step=MIB // 2, breaks_at=breaks_at))
            with contextlib.suppress(ReaderBroke, errors.DriverError):
                self.driver.put(digest, size, upload, deadline=DEADLINE)
                self.fail("put must raise when the upload does")
            self._assert_nothing_kept(digest)
        self.driver.put(digest, size, cast(BinaryIO, Upload(size)), deadline=DEADLINE)

    def test_an_upload_that_takes_too_long_is_given_up_and_leaves_nothing(self) -> None:
        size = MIB
        upload = cast(BinaryIO, Upload(size, step=1024, pause=0.02))  # about 20 s
        digest, began = digest_of(size), time.monotonic()
        put = self._offer(digest, size, upload, deadline=0.3)
        self._raises(errors.DriverTimeout, put, "put beyond its deadline")
        self.assertLess(time.monotonic() - began, 10, "put went on long after its deadline")
        self._assert_nothing_kept(digest)

    def test_what_is_no_digest_is_never_a_path(self) -> None:
        for wrong in ("", "..", "../../x", "/etc/passwd", "\0", "A" * 64, "0" * 63):
            put = self._offer(wrong, 1, io.BytesIO(b"x"))
            self._raises(errors.DriverError, put, f"put under {wrong!r}")
            self._raises(errors.DriverError, functools.partial(self._get, wrong), f"open of {wrong!r}")
            with contextlib.suppress(errors.DriverError):
                self.assertIsNone(self.driver.exists(wrong, deadline=DEADLINE))
            with contextlib.suppress(errors.DriverError):
                self.driver.delete(wrong, deadline=DEADLINE)

    # -- missing, deleted, damaged ---------------------------------------------------------

    def test_an_unknown_package_is_missing_as_soon_as_it_is_opened(self) -> None:
        self._put(b"another")

        def enter() -> None:
            with self.driver.open("0" * 64, deadline=DEADLINE):
                pass

        self._raises(errors.PackageMissing, enter, "open of an unknown package")

    def test_a_deleted_package_is_gone_and_its_neighbours_stay(self) -> None:
        deleted, kept = self._put(b"deleted"), self._put(b"kept")
        self.driver.delete(deleted, deadline=DEADLINE)
        self.assertIsNone(self.driver.exists(deleted, deadline=DEADLINE))
        self._raises(errors.PackageMissing, lambda: self._get(deleted), "open of a deleted package")
        self.assertEqual([PackageInfo(kept, 4)], list(self.driver.list_packages(deadline=DEADLINE)))
        self.assertEqual(b"kept", self._get(kept))

    def test_deleting_what_is_missing_is_a_no_op(self) -> None:
        digest = self._put(b"code")
        for missing in (digest, digest, "0" * 64):
            self.driver.delete(missing, deadline=DEADLINE)

    def test_a_deleted_package_can_be_put_again(self) -> None:
        self.driver.delete(self._put(b"code"), deadline=DEADLINE)
        self.assertEqual(b"code", self._get(self._put(b"code")))

    def test_a_reader_of_a_package_that_is_deleted_gets_all_of_it_or_an_error(self) -> None:
        data = content(0, 5 * MIB)
        digest = self._put(data)
        with contextlib.suppress(errors.DriverError), self.driver.open(digest, deadline=DEADLINE) as chunks:
            iterator = iter(chunks)
            first = next(iterator)
            self.driver.delete(digest, deadline=DEADLINE)
            self.assertEqual(data, first + b"".join(iterator))
        self.assertIsNone(self.driver.exists(digest, deadline=DEADLINE))

    def test_putting_and_deleting_at_once_leaves_all_or_nothing(self) -> None:
        data = content(0, MIB)
        digest = hashlib.sha256(data).hexdigest()
        delete = functools.partial(self.driver.delete, digest, deadline=DEADLINE)
        for _ in range(5):
            self._together(*[self._putter(self.driver, digest, data) for _ in range(3)], delete, delete)
            if self.driver.exists(digest, deadline=DEADLINE) is not None:
                self.assertEqual(data, self._get(digest))

    def test_a_damaged_package_is_noticed_at_its_end_and_mended_by_putting_it_again(self) -> None:
        data = content(0, 2 * MIB)
        digest = self._put(data)
        self.damage(digest)
        self._raises(errors.PackageCorrupt, lambda: self._get(digest), "open of a damaged package")
        self._put(data)
        self.assertEqual(data, self._get(digest))

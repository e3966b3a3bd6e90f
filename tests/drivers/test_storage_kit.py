"""The storage kit finds the bugs that drivers have: each is planted here and must be reported."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pathlib
import unittest
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

import testtools

from funcplat import errors
from funcplat.storage import base, local
from funcplat.storage.base import Capability, PackageInfo, Reference
from funcplat.testing.storage import ReferenceTests, StorageDriverTests


def failures_of(driver: type[base.StorageDriver], *names: str, **attributes: Any) -> set[str]:
    """Which of the kit's tests, or of those named, fail for this driver."""
    body = {"driver_class": driver, "LARGE": 30 * 1024 * 1024, **attributes}
    case = type("PlantedTests", (StorageDriverTests, unittest.TestCase), body)
    result = unittest.TestResult()
    names = names or tuple(unittest.defaultTestLoader.getTestCaseNames(case))
    unittest.TestSuite(case(name) for name in names).run(result)
    return {test.id().rpartition(".")[2] for test, _ in (*result.failures, *result.errors)}


class Local(local.LocalDriver):
    """A right driver, to be spoiled."""

    def package(self, digest: str) -> pathlib.Path:
        return self._path(digest)


class KitTests(testtools.TestCase):
    def caught(self, driver: type[base.StorageDriver], *names: str) -> None:
        self.assertEqual(set(names), failures_of(driver, *names))

    def test_a_right_driver_passes(self) -> None:
        self.assertEqual(set(), failures_of(Local))

    def test_an_empty_class_fails(self) -> None:
        class Empty(base.StorageDriver):
            pass

        self.caught(Empty, "test_it_has_at_least_one_side")

    def test_a_class_that_only_declares_fails(self) -> None:
        class Declares(base.StorageDriver):
            capabilities = frozenset([Capability.PACKAGES])

        self.caught(Declares, "test_what_was_put_can_be_opened", "test_deleting_what_is_missing_is_a_no_op")

    def test_a_driver_of_another_version_fails(self) -> None:
        class Old(Local):
            api_version = 0

        self.caught(Old, "test_it_is_a_driver_of_this_interface")

    def test_a_check_that_fails_fails_everything(self) -> None:
        class Broken(Local):
            def check(self) -> None:
                raise errors.DriverError("no disk")

        self.caught(Broken, "test_closing_twice_is_a_no_op", "test_what_was_put_can_be_opened")

    def test_holding_the_package_in_memory_is_found(self) -> None:
        class Greedy(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                super().put(digest, size, io.BytesIO(data.read()), deadline)

        class Collecting(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                chunks = iter(lambda: data.read(65536), b"")
                super().put(digest, size, io.BytesIO(b"".join(chunks)), deadline)

        class GreedyOut(Local):
            @contextlib.contextmanager
            def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
                with super().open(digest, deadline) as chunks:
                    yield iter([b"".join(chunks)])

        self.caught(Greedy, "test_a_large_package_is_streamed_in")
        self.caught(Collecting, "test_a_large_package_is_streamed_in")
        self.caught(GreedyOut, "test_a_large_package_is_streamed_out_in_chunks")

    def test_unchecked_uploads_are_found(self) -> None:
        class Trusting(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                path = self.package(digest)
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as file:
                    while chunk := data.read(65536):
                        file.write(chunk)

        self.caught(
            Trusting,
            "test_bytes_of_another_digest_are_refused_and_leave_nothing",
            "test_another_number_of_bytes_is_refused_and_leaves_nothing",
            "test_a_refused_put_does_not_touch_the_package_that_is_there",
            "test_an_upload_that_breaks_off_leaves_nothing",
            "test_an_upload_that_takes_too_long_is_given_up_and_leaves_nothing",
        )

    def test_reading_only_what_was_announced_is_found(self) -> None:
        class Short(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                start = io.BytesIO(data.read(size)) if size < 10**6 * 3 else data
                content = start.getvalue() if isinstance(start, io.BytesIO) else b""
                if start is not data and hashlib.sha256(content).hexdigest() != digest:
                    return
                super().put(digest, size, start, deadline)

        self.caught(Short, "test_another_number_of_bytes_is_refused_and_leaves_nothing")

    def test_one_read_for_all_is_found(self) -> None:
        class OneRead(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                super().put(digest, size, io.BytesIO(data.read(size + 1)), deadline)

        self.caught(OneRead, "test_an_upload_that_gives_little_at_a_time_is_read_to_its_end")

    def test_a_put_that_works_once_is_found(self) -> None:
        class Once(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                if self.package(digest).exists():
                    raise errors.DriverError("it is there already")
                super().put(digest, size, data, deadline)

        self.caught(Once, "test_putting_again_is_a_success")

    def test_a_temporary_file_that_puts_share_is_found(self) -> None:
        class Sharing(Local):
            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                shared = self.context.state_dir / "upload"
                with shared.open("wb") as file:
                    while chunk := data.read(65536):
                        file.write(chunk)
                with shared.open("rb") as file:
                    super().put(digest, size, file, deadline)

        self.caught(Sharing, "test_different_packages_put_at_once_stay_apart")

    def test_a_memory_of_ones_own_is_found(self) -> None:
        class Remembering(Local):
            sizes: ClassVar[Mapping[str, int]] = {}

            def put(self, digest: str, size: int, data: BinaryIO, deadline: float) -> None:
                super().put(digest, size, data, deadline)
                self.sizes = {**self.sizes, digest: size}

            def exists(self, digest: str, deadline: float) -> PackageInfo | None:
                return PackageInfo(digest, self.sizes[digest]) if digest in self.sizes else None

            def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
                return [PackageInfo(digest, size) for digest, size in self.sizes.items()]

        self.caught(
            Remembering,
            "test_another_driver_of_the_same_store_finds_what_was_put",
            "test_a_deleted_package_is_gone_and_its_neighbours_stay",
        )

    def test_foreign_errors_are_found(self) -> None:
        class Foreign(Local):
            @contextlib.contextmanager
            def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
                with self.package(digest).open("rb") as file:
                    yield iter(lambda: file.read(65536), b"")

            def delete(self, digest: str, deadline: float) -> None:
                self.package(digest).unlink()

        self.caught(
            Foreign,
            "test_an_unknown_package_is_missing_as_soon_as_it_is_opened",
            "test_deleting_what_is_missing_is_a_no_op",
        )

    def test_a_package_that_is_missing_too_late_is_found(self) -> None:
        class Lazy(Local):
            @contextlib.contextmanager
            def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
                def chunks() -> Iterator[bytes]:
                    with super(Lazy, self).open(digest, deadline) as inner:
                        yield from inner

                yield chunks()

        self.caught(Lazy, "test_an_unknown_package_is_missing_as_soon_as_it_is_opened")

    def test_digests_used_as_paths_are_found(self) -> None:
        class Naive(Local):
            def _path(self, digest: str) -> pathlib.Path:
                return self._directory / digest[:2] / digest

        self.caught(Naive, "test_what_is_no_digest_is_never_a_path")

    def test_wrong_lists_and_sizes_are_found(self) -> None:
        class Doubling(Local):
            def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
                return [*super().list_packages(deadline), *super().list_packages(deadline)]

        class Forgetting(Local):
            def list_packages(self, deadline: float) -> Iterable[PackageInfo]:
                return []

        class Sizeless(Local):
            def exists(self, digest: str, deadline: float) -> PackageInfo | None:
                return PackageInfo(digest, 0) if super().exists(digest, deadline) else None

        for spoiled in (Doubling, Forgetting):
            self.caught(spoiled, "test_the_list_has_every_package_once")
        self.caught(Sizeless, "test_a_package_exists_with_its_size_once_it_was_put")

    def test_a_delete_that_does_nothing_or_too_much_is_found(self) -> None:
        class Keeping(Local):
            def delete(self, digest: str, deadline: float) -> None:
                pass

        class Sweeping(Local):
            def delete(self, digest: str, deadline: float) -> None:
                for info in super().list_packages(deadline):
                    super().delete(info.digest, deadline)

        for spoiled in (Keeping, Sweeping):
            self.caught(spoiled, "test_a_deleted_package_is_gone_and_its_neighbours_stay")

    def test_damage_that_goes_unnoticed_is_found(self) -> None:
        class Blind(Local):
            @contextlib.contextmanager
            def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
                if not self.package(digest).exists():
                    raise errors.PackageMissing()
                with self.package(digest).open("rb") as file:
                    yield iter(lambda: file.read(65536), b"")

        def damage(case: StorageDriverTests, digest: str) -> None:
            path = case.context.state_dir / "packages" / digest[:2] / digest
            path.write_bytes(b"!" + path.read_bytes()[1:])

        test = "test_a_damaged_package_is_noticed_at_its_end_and_mended_by_putting_it_again"
        self.assertEqual({test}, failures_of(Blind, test, damage=damage))
        self.assertEqual(set(), failures_of(Local, test, damage=damage))

    def test_options_without_help_and_sides_that_answer_undeclared_are_found(self) -> None:
        class Careless(Local):
            opts = (*local.LocalDriver.opts, local.cfg.StrOpt("colour"))

            def resolve(
                self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
            ) -> Reference:
                return Reference(reference, "pin", None)

        self.caught(
            Careless, "test_its_options_have_help", "test_sides_that_it_does_not_declare_are_not_supported"
        )


class Files(base.StorageDriver):
    """References to files of this machine, pinned by the hash of their bytes."""

    capabilities = frozenset([Capability.REFERENCES])

    def resolve(
        self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
    ) -> Reference:
        try:
            data = pathlib.Path(reference["path"]).read_bytes()
        except (KeyError, TypeError, OSError) as error:
            raise errors.InvalidRequest("no such file") from error
        return Reference(reference, hashlib.sha256(data).hexdigest(), len(data))

    @contextlib.contextmanager
    def open_reference(
        self, reference: Reference, credentials: Mapping[str, str], deadline: float
    ) -> Iterator[Iterator[bytes]]:
        found = self.resolve(reference.value, credentials, deadline)
        if found.pin != reference.pin:
            raise errors.PackageCorrupt(f"{found.pin} is not {reference.pin}")
        yield iter([pathlib.Path(reference.value["path"]).read_bytes()])


def make_reference(case: StorageDriverTests, data: bytes) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    path = case.context.state_dir / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return {"path": str(path)}, {}


def change_referred(case: StorageDriverTests, reference: Mapping[str, Any], data: bytes) -> None:
    pathlib.Path(reference["path"]).write_bytes(data)


TESTS_OF_REFERENCES = tuple(name for name in vars(ReferenceTests) if name.startswith("test_"))


class ReferenceKitTests(testtools.TestCase):
    steps: ClassVar[dict[str, Any]] = {"make_reference": make_reference, "change_referred": change_referred}

    def test_a_right_driver_of_references_passes(self) -> None:
        self.assertEqual(set(), failures_of(Files, **self.steps))

    def test_a_driver_of_references_without_tests_for_them_fails(self) -> None:
        self.assertIn("test_a_reference_is_pinned_and_opened", failures_of(Files, *TESTS_OF_REFERENCES))

    def test_a_pin_that_does_not_hold_is_found(self) -> None:
        class Loose(Files):
            @contextlib.contextmanager
            def open_reference(
                self, reference: Reference, credentials: Mapping[str, str], deadline: float
            ) -> Iterator[Iterator[bytes]]:
                yield iter([pathlib.Path(reference.value["path"]).read_bytes()])

        self.assertIn(
            "test_what_changed_since_it_was_pinned_is_not_given_out", failures_of(Loose, **self.steps)
        )

    def test_a_bad_reference_that_is_the_drivers_error_is_found(self) -> None:
        class Rude(Files):
            def resolve(
                self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
            ) -> Reference:
                data = pathlib.Path(reference["path"]).read_bytes()
                return Reference(reference, hashlib.sha256(data).hexdigest(), len(data))

        self.assertIn(
            "test_a_bad_reference_is_the_users_mistake", failures_of(Rude, *TESTS_OF_REFERENCES, **self.steps)
        )

"""What the tests of storage drivers have in common: a driver, a store, and steps."""

from __future__ import annotations

import datetime
import hashlib
import io
import pathlib
import tempfile
import threading
import unittest
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from oslo_config import cfg

from funcplat import errors
from funcplat.drivers.base import Context
from funcplat.storage.base import StorageDriver

if TYPE_CHECKING:
    _Case = unittest.TestCase
else:
    _Case = object  # so that a test runner that finds the kit itself does not run it

DEADLINE = 60.0
"""Seconds that a test gives a call."""


class StorageCase(_Case):
    """A driver of an empty store, and what tests do with it."""

    driver_class: ClassVar[type[StorageDriver]]
    options: ClassVar[Mapping[str, Any]] = {}
    """Values of the driver's options, where its defaults do not fit a test."""

    # -- what an author may override -----------------------------------------------------------------

    def make_options(self) -> Mapping[str, Any]:
        """`options` that differ from test to test: a fresh bucket, the port of a server.

        A test begins with a store without packages.  ``self.context.state_dir`` is a fresh directory.
        """
        return self.options

    def damage(self, digest: str) -> None:
        """Alter the bytes that are kept under this digest, behind the driver's back."""
        raise unittest.SkipTest("override damage() to test that damaged packages are noticed")

    def make_reference(self, data: bytes) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Keep data as a user of the store would; return a reference to it and the user's credentials."""
        raise NotImplementedError("a driver with Capability.REFERENCES needs make_reference() in its tests")

    def change_referred(self, reference: Mapping[str, Any], data: bytes) -> None:
        """Replace, as that user, what the reference points at."""
        raise NotImplementedError("a driver with Capability.REFERENCES needs change_referred() in its tests")

    # -- construction --------------------------------------------------------------------------------

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="funcplat-kit-")
        self.addCleanup(directory.cleanup)
        self.context = Context(
            "kit", pathlib.Path(directory.name), False, lambda: datetime.datetime.now(datetime.UTC)
        )
        self._values = self.make_options()
        self.driver = self.make_driver()

    def make_driver(self) -> StorageDriver:
        """Another driver of the same store, as another process would have it; checked, closed at the end."""
        conf = cfg.ConfigOpts()
        conf.register_group(cfg.OptGroup("driver"))  # also for a driver without options
        conf.register_opts(list(self.driver_class.opts), group="driver")
        conf([], default_config_files=[], default_config_dirs=[])
        for name, value in self._values.items():
            conf.set_override(name, value, group="driver")
        driver = self.driver_class(conf.driver, self.context)
        self.addCleanup(driver.close)
        driver.check()
        return driver

    # -- steps ---------------------------------------------------------------------------------------

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.driver.put(digest, len(data), io.BytesIO(data), deadline=DEADLINE)
        return digest

    def _get(self, digest: str, driver: StorageDriver | None = None) -> bytes:
        with (driver or self.driver).open(digest, deadline=DEADLINE) as chunks:
            return b"".join(chunks)

    def _offer(
        self, digest: str, size: int, data: BinaryIO, deadline: float = DEADLINE
    ) -> Callable[[], None]:
        """A call of put that is yet to be made."""
        return lambda: self.driver.put(digest, size, data, deadline=deadline)

    def _raises(self, kind: type[BaseException], call: Callable[[], object], what: str) -> None:
        """The call raises that kind of error, and not one that merely looks like it."""
        try:
            call()
        except kind:
            return
        except Exception as error:  # whatever it is: the report must name it
            self.fail(f"{what} must raise {kind.__name__}, not {type(error).__name__}: {error}")
        self.fail(f"{what} must raise {kind.__name__}, and raised nothing")

    def _assert_nothing_kept(self, digest: str) -> None:
        self.assertIsNone(self.driver.exists(digest, deadline=DEADLINE), "a refused package must not exist")
        self.assertEqual(
            [], list(self.driver.list_packages(deadline=DEADLINE)), "a refused package is listed"
        )
        self._raises(errors.PackageMissing, lambda: self._get(digest), "open of a refused package")

    def _together(self, *calls: Callable[[], object]) -> None:
        """Run calls in threads that start at once; fail with the first error."""
        barrier = threading.Barrier(len(calls))
        failures: list[BaseException] = []

        def run(call: Callable[[], object]) -> None:
            barrier.wait(DEADLINE)
            try:
                call()
            except BaseException as error:  # raised again below
                failures.append(error)

        threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
            self.assertFalse(thread.is_alive(), "a call did not return")
        if failures:
            raise failures[0]

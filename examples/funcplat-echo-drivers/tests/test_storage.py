"""The storage driver against the kit."""

import contextlib
import sqlite3
import unittest

from funcplat_echo.storage import EchoStorage

from funcplat.testing import StorageDriverTests


class EchoStorageTests(StorageDriverTests, unittest.TestCase):
    driver_class = EchoStorage

    def damage(self, digest: str) -> None:
        with contextlib.closing(sqlite3.connect(self.context.state_dir / "echo.sqlite")) as database:
            database.execute("UPDATE chunks SET data = zeroblob(length(data))")
            database.commit()

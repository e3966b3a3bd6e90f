"""The auth driver noauth."""

from __future__ import annotations

import asyncio
import datetime
import pathlib
import types

import testtools

from funcplat import errors
from funcplat.auth import noauth
from funcplat.drivers.base import Context


def driver(*, exposed: bool = False, allow_exposed: bool = False) -> noauth.NoAuthDriver:
    context = Context("owner", pathlib.Path("/nowhere"), exposed, lambda: datetime.datetime.now(datetime.UTC))
    return noauth.NoAuthDriver(types.SimpleNamespace(allow_exposed=allow_exposed), context)


class NoAuthTests(testtools.TestCase):
    def test_everybody_is_an_admin_of_the_default_project_whatever_they_send(self) -> None:
        for token in (None, "", "notused", "\udcff"):
            identity = asyncio.run(driver().authenticate(token))
            self.assertEqual(("default", True), (identity.project_id, identity.is_admin))

    def test_it_works_on_loopback(self) -> None:
        driver().check()

    def test_it_refuses_to_be_exposed_and_names_both_ways_out(self) -> None:
        error = self.assertRaises(errors.DriverError, driver(exposed=True).check)
        self.assertIn("[auth] driver", error.message)
        self.assertIn("[auth_noauth] allow_exposed = true", error.message)

    def test_it_is_exposed_when_told_twice(self) -> None:
        driver(exposed=True, allow_exposed=True).check()

    def test_it_says_that_it_does_not_authenticate(self) -> None:
        self.assertFalse(noauth.NoAuthDriver.authenticates)

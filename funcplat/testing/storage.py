"""The compliance kit of storage drivers: what every driver must do, as tests.

A driver's author writes::

    class MyStorageTests(StorageDriverTests, unittest.TestCase):
        driver_class = MyStorage
        options = {"url": "http://127.0.0.1:9000"}

and gets a test for each promise of `funcplat.storage.base`.  The tests look at what the driver does, never at
how.  Of a side that the driver does not declare there are no tests but one: it must say NotSupported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from funcplat import errors
from funcplat.drivers.base import Feature
from funcplat.storage.base import API_VERSION, Capability, Reference, StorageDriver
from funcplat.testing.storage_case import DEADLINE, StorageCase
from funcplat.testing.storage_packages import PackageTests
from funcplat.testing.uploads import MIB, content


class ReferenceTests(StorageCase):
    """Capability.REFERENCES: resolve, open_reference."""

    def _resolve(self, data: bytes) -> tuple[Reference, Mapping[str, str]]:
        value, credentials = self.make_reference(data)
        return self.driver.resolve(value, credentials, deadline=DEADLINE), credentials

    def _follow(self, reference: Reference, credentials: Mapping[str, str]) -> bytes:
        with self.driver.open_reference(reference, credentials, deadline=DEADLINE) as chunks:
            return b"".join(chunks)

    def test_a_reference_is_pinned_and_opened(self) -> None:
        for data in (b"", b"code", content(0, 3 * MIB)):
            reference, credentials = self._resolve(data)
            self.assertTrue(reference.pin, "a pin must name what was found")
            self.assertIn(reference.size, (None, len(data)))
            self.assertEqual(data, self._follow(reference, credentials))

    def test_a_bad_reference_is_the_users_mistake(self) -> None:
        value, credentials = self.make_reference(b"code")
        for wrong in (
            {},
            dict.fromkeys(value, None),
            dict.fromkeys(value, 7),
            dict.fromkeys(value, "../../no such"),
        ):
            resolve = functools.partial(self.driver.resolve, wrong, credentials, deadline=DEADLINE)
            self._raises(errors.InvalidRequest, resolve, f"resolve of {wrong!r}")

    def test_what_changed_since_it_was_pinned_is_not_given_out(self) -> None:
        reference, credentials = self._resolve(b"code")
        self.change_referred(reference.value, b"other code")
        follow = functools.partial(self._follow, reference, credentials)
        self._raises(errors.PackageCorrupt, follow, "open_reference of what has changed")
        again = self.driver.resolve(reference.value, credentials, deadline=DEADLINE)
        self.assertNotEqual(reference.pin, again.pin)
        self.assertEqual(b"other code", self._follow(again, credentials))


class StorageDriverTests(PackageTests, ReferenceTests):
    """Everything that a storage driver promises.  Set `driver_class`, and what else its tests need."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Leave out the tests of sides that the driver does not declare."""
        super().__init_subclass__(**kwargs)
        capabilities = (
            cls.driver_class.capabilities if hasattr(cls, "driver_class") else frozenset(Capability)
        )
        for capability, tests in (
            (Capability.PACKAGES, PackageTests),
            (Capability.REFERENCES, ReferenceTests),
        ):
            if capability not in capabilities:
                for name in filter(lambda name: name.startswith("test_"), vars(tests)):
                    setattr(cls, name, None)  # as unittest has it for inherited tests that do not apply

    def test_it_is_a_driver_of_this_interface(self) -> None:
        self.assertTrue(issubclass(self.driver_class, StorageDriver))
        self.assertEqual(API_VERSION, self.driver_class.api_version)

    def test_it_has_at_least_one_side(self) -> None:
        self.assertTrue(self.driver_class.capabilities, "capabilities is empty: the driver can do nothing")
        for capability in self.driver_class.capabilities:
            self.assertIsInstance(capability, Capability)

    def test_sides_that_it_does_not_declare_are_not_supported(self) -> None:
        calls: dict[Capability, Callable[[], object]] = {
            Capability.PACKAGES: lambda: self.driver.exists("0" * 64, deadline=DEADLINE),
            Capability.REFERENCES: lambda: self.driver.resolve({}, {}, deadline=DEADLINE),
        }
        for capability in calls.keys() - self.driver_class.capabilities:
            self._raises(
                errors.NotSupported, calls[capability], f"a side that is not declared ({capability})"
            )

    def test_its_options_have_help(self) -> None:
        for option in self.driver_class.opts:
            self.assertTrue(option.help, f"option {option.name} has no help")

    def test_its_features_are_features(self) -> None:
        for feature in self.driver.features():
            self.assertIsInstance(feature, Feature)

    def test_closing_twice_is_a_no_op(self) -> None:
        self.driver.close()
        self.driver.close()

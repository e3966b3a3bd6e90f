"""Packages in a real registry: how they lie there, what crashes leave, what is damaged and mended."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, cast
from unittest import mock

import fixtures
import testtools

from funcplat import errors
from funcplat.storage.base import PackageInfo
from funcplat.storage.registry import failures, manifests, packages, repository
from funcplat.storage.registry.driver import RegistryDriver
from funcplat.testing.storage_case import StorageCase
from funcplat.testing.uploads import ReaderBroke, Upload, digest_of
from tests.drivers import registries

MIB = 1024 * 1024


class Case(StorageCase, testtools.TestCase):
    """A driver with an empty repository of a registry that the tests of a class share."""

    driver_class = RegistryDriver
    registry: ClassVar[registries.Registry]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.registry = registries.Registry(**cls.configuration())
        cls.addClassCleanup(cls.registry.cleanUp)
        cls.registry.setUp()

    @classmethod
    def configuration(cls) -> dict[str, Any]:
        return {}

    def make_options(self) -> Mapping[str, Any]:
        self.name = f"packages/{uuid.uuid4().hex}"
        self.client = registries.Client(f"{self.registry.host}/{self.name}")
        # of no other test, as registries keep what is equal once
        self.data = uuid.uuid4().bytes * 1000
        self.digest = hashlib.sha256(self.data).hexdigest()
        self.info = PackageInfo(self.digest, len(self.data))
        self.tag = f"package-{self.digest}"
        return {"repository": f"{self.registry.host}/{self.name}"}

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger("funcplat"))

    def put(self) -> None:
        self._put(self.data)

    def exists(self) -> PackageInfo | None:
        return self.driver.exists(self.digest, deadline=20)

    def listed(self) -> list[PackageInfo]:
        return list(self.driver.list_packages(deadline=20))

    def assert_kept(self) -> None:
        self.assertEqual(self.info, self.exists())
        self.assertEqual([self.info], self.listed())
        self.assertEqual(self.data, self._get(self.digest))

    def uploads(self) -> list[str]:
        """Bytes of uploads that were begun and neither ended nor given up."""
        path = self.registry.repository(self.name) / "_uploads"
        return [each.parent.name for each in path.glob("*/data")]

    def layer(self) -> dict[str, Any]:
        (layer,) = self.client.manifest(self.tag)["layers"]
        return cast(dict[str, Any], layer)

    def link(self, *parts: str) -> Any:
        """A file by which the registry finds something in this repository."""
        return self.registry.repository(self.name).joinpath(*parts, "link")


class LayoutTests(Case):
    def test_a_package_is_an_artifact_of_one_layer_with_its_own_digest(self) -> None:
        self.put()
        found = self.client.manifest(self.tag)
        self.assertEqual("application/vnd.funcplat.package.v1", found["artifactType"])
        self.assertEqual(manifests.OCI_EMPTY, found["config"]["mediaType"])
        self.assertEqual(f"sha256:{self.digest}", self.layer()["digest"])
        self.assertEqual(self.data, self.client.request("GET", f"blobs/sha256:{self.digest}").content)

    def test_putting_again_changes_nothing(self) -> None:
        self.put()
        before = self.registry.log.count("http.request.method=PUT")
        self.put()
        self.assertEqual(before, self.registry.log.count("http.request.method=PUT"))
        self.assert_kept()

    def test_what_is_not_ours_is_not_listed(self) -> None:
        self.put()
        other = {"config": self.client.push_blob(b"{}"), "layers": [self.client.push_blob(b"x")]}
        for tag in ("latest", "package-1", f"package-{'g' * 64}", f"x-{self.tag}"):
            self.client.push_manifest(tag, other, manifests.OCI_MANIFEST)
        self.assert_kept()

    def test_a_long_list_comes_in_pages(self) -> None:
        kept = {PackageInfo(self._put(b"x" * size), size) for size in range(1, 8)}
        with mock.patch.object(repository, "TAGS_AT_ONCE", 3):
            self.assertEqual(kept, set(self.listed()))

    def test_garbage_collection_removes_what_was_deleted_and_nothing_else(self) -> None:
        self.put()
        other = self._put(uuid.uuid4().bytes)
        self.driver.delete(self.digest, deadline=20)
        self.registry.collect_garbage()
        self.assertFalse(self.registry.blob(self.digest).exists())
        self.assertEqual([PackageInfo(other, 16)], self.listed())
        self.put()
        self.assertEqual(self.data, self._get(self.digest))


class CrashTests(Case):
    def test_a_put_killed_at_any_step_leaves_the_package_whole_or_not_at_all(self) -> None:
        code = (
            "import io, os, sys, types, hashlib\n"
            "from funcplat.storage.registry import driver, transport\n"
            "step, calls = int(sys.argv[2]), [0]\n"
            "def count():\n"
            "    calls[0] += 1\n"
            "    if calls[0] == step: os.kill(os.getpid(), 9)\n"
            "real = transport.Transport._exchange\n"
            "def exchange(self, call, deadline):\n"
            "    count()\n"
            "    answer = real(self, call, deadline)\n"
            "    count()\n"
            "    return answer\n"
            "transport.Transport._exchange = exchange\n"
            "class Data(io.BytesIO):\n"
            "    def read(self, size=-1):\n"
            "        count()\n"
            "        return super().read(min(size, 10000))\n"
            "names = [option.dest for option in driver.RegistryDriver.opts]\n"
            "options = types.SimpleNamespace(**dict.fromkeys(names))\n"
            "options.repository, options.plain_http = sys.argv[1], ['127.0.0.1']\n"
            "data = bytes.fromhex(sys.argv[3]) * 1000\n"
            "made = driver.RegistryDriver(options, None)\n"
            "made.put(hashlib.sha256(data).hexdigest(), len(data), Data(data), 60)\n"
        )
        place, seed = f"{self.registry.host}/{self.name}", self.data[:16].hex()
        for step in range(1, 60):
            done = subprocess.run([sys.executable, "-c", code, place, str(step), seed], capture_output=True)
            self.assertIn(self.exists(), (None, self.info), done.stderr)
            if self.exists() is not None:
                self.assert_kept()
                self.driver.delete(self.digest, deadline=20)
            self.assertEqual([], self.listed())
            if done.returncode == 0:
                break
            self.assertEqual(-9, done.returncode, done.stderr)
        else:
            self.fail("put never came to its end")
        self.assertGreater(step, 12)
        self.put()
        self.assert_kept()

    def test_uploads_that_fail_are_given_up(self) -> None:
        size = 3 * MIB
        for breaks_at in (0, MIB, size):
            upload = cast(BinaryIO, Upload(size, step=MIB // 2, breaks_at=breaks_at))
            self.assertRaises(ReaderBroke, self.driver.put, digest_of(size), size, upload, deadline=20)
        wrong = io.BytesIO(self.data[:-1] + b"!")
        self.assertRaises(errors.PackageCorrupt, self.driver.put, self.digest, len(self.data), wrong, 20)
        # A registry that is told so before it has noticed that nothing more will come may keep what came.
        self.assertEqual(1 + 4, self.registry.log.count(f'"DELETE /v2/{self.name}/blobs/uploads/'))

    def test_what_the_upload_raises_is_not_the_drivers(self) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise ConnectionResetError("the client went away")

        self.assertRaises(ConnectionResetError, self.driver.put, self.digest, 4, Broken(), deadline=20)
        self.assertEqual([], self.uploads())


class DamageTests(Case):
    """What a disk, or a registry that was killed, can do to what is kept."""

    def mended(self) -> None:
        """What is there cannot be read; putting it again, twice, helps."""
        self.assertRaises(errors.DriverError, self._get, self.digest)
        self.put()
        self.assert_kept()
        self.put()
        self.assert_kept()
        self.driver.delete(self.digest, deadline=20)
        self.assertEqual([], self.listed())
        self.put()
        self.assert_kept()

    def test_damaged_bytes(self) -> None:
        self.put()
        self.registry.damage(self.digest)
        self.mended()
        self.assertEqual(packages.SALTED, self.layer()["mediaType"])
        self.assertIn(f"package {self.digest}: kept anew", self.log.output)

    def test_bytes_that_are_damaged_twice(self) -> None:
        self.put()
        self.registry.damage(self.digest)
        self.put()
        self.registry.damage(self.layer()["digest"].removeprefix("sha256:"))
        self.mended()

    def test_bytes_that_are_cut_off(self) -> None:
        self.put()
        self.registry.blob(self.digest).write_bytes(self.data[:100])
        self.mended()

    def test_bytes_that_are_lost(self) -> None:
        self.put()
        self.registry.blob(self.digest).unlink()
        self.assertRaises(errors.PackageMissing, self._get, self.digest)
        self.mended()

    def test_a_damaged_manifest(self) -> None:
        self.put()
        revision = next((self.link("_manifests", "revisions").parent / "sha256").iterdir()).name
        self.registry.damage(revision)
        self.mended()

    def test_a_manifest_that_is_lost(self) -> None:
        self.put()
        revision = next((self.link("_manifests", "revisions").parent / "sha256").iterdir()).name
        self.registry.blob(revision).unlink()
        self.assertIsNone(self.exists())
        self.mended()

    def test_links_that_a_crash_of_the_registry_left_empty(self) -> None:
        empty = hashlib.sha256(b"{}").hexdigest()
        for parts in (
            ("_layers", "sha256", self.digest),
            ("_layers", "sha256", empty),
            ("_manifests", "tags", self.tag, "current"),
        ):
            self.put()
            self.link(*parts).write_bytes(b"")
            self.put()
            self.assert_kept()

    def test_something_else_under_the_tag_of_a_package(self) -> None:
        other = {"config": self.client.push_blob(b"{}"), "layers": [self.client.push_blob(b"x")]}
        self.client.push_manifest(self.tag, other, manifests.OCI_MANIFEST)
        self.assertRaises(errors.PackageCorrupt, self.exists)
        self.assertEqual([], self.listed())
        self.mended()


class NoDeletionTests(Case):
    @classmethod
    def configuration(cls) -> dict[str, Any]:
        return {"storage": {"inmemory": {}, "delete": {"enabled": False}}}

    def test_a_registry_that_does_not_delete_is_told_from_one_that_has_nothing(self) -> None:
        self.driver.delete(self.digest, deadline=20)
        self.put()
        raised = self.assertRaises(failures.DeletionRefused, self.driver.delete, self.digest, deadline=20)
        self.assertEqual("registry_deletion_refused", raised.code)
        self.assertIn("storage.delete.enabled", raised.message)
        self.assert_kept()


class ReadOnlyTests(Case):
    @classmethod
    def configuration(cls) -> dict[str, Any]:
        return {"storage": {"inmemory": {}, "maintenance": {"readonly": {"enabled": True}}}}

    def make_driver(self) -> Any:
        self.refusal = self.assertRaises(errors.DriverError, super().make_driver)

    def test_a_registry_that_takes_nothing_is_refused_at_start(self) -> None:
        self.assertRegex(self.refusal.message, "refuses this .405")

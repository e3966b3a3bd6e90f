"""Images in a real registry: pinned for a platform, and never moved by a tag."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import testtools

from funcplat import errors
from funcplat.storage.base import Reference
from funcplat.storage.registry import failures, manifests
from funcplat.storage.registry.driver import RegistryDriver
from funcplat.testing.storage_case import StorageCase
from tests.drivers import registries


class Case(StorageCase, testtools.TestCase):
    driver_class = RegistryDriver
    registry: ClassVar[registries.Registry]
    credentials: ClassVar[dict[str, str]] = {}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.registry = cls.make_registry()
        cls.addClassCleanup(cls.registry.cleanUp)
        cls.registry.setUp()

    @classmethod
    def make_registry(cls) -> registries.Registry:
        return registries.Registry()

    def make_options(self) -> Mapping[str, Any]:
        self.place = f"{self.registry.host}/images/{uuid.uuid4().hex}"
        self.client = registries.Client(self.place)
        return {"platform": "linux/amd64"}

    def push(self, tag: str, platform: str = "linux/amd64", docker: bool = False) -> dict[str, Any]:
        """An image; its descriptor, as it stands in an index."""
        os, architecture, *variant = platform.split("/")
        where = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        config = {**where, "config": {"Entrypoint": ["/run"], "Labels": {"tag": tag, "at": uuid.uuid4().hex}}}
        kinds = (manifests.DOCKER_MANIFEST, manifests.DOCKER_CONFIG) if docker else _OCI
        value = {
            "config": self.client.push_blob(json.dumps(config).encode(), kinds[1]),
            "layers": [self.client.push_blob(b"layer one"), self.client.push_blob(b"two")],
        }
        self.size = 12 + value["config"]["size"]
        return {**self.client.push_manifest(tag, value, kinds[0]), "platform": where}

    def resolve(self, rest: str = ":1", **more: str) -> Reference:
        value = {"source": "image", "image": f"{self.place}{rest}", **more}
        return self.driver.resolve(value, self.credentials, deadline=20)


_OCI = (manifests.OCI_MANIFEST, manifests.OCI_CONFIG)


class ResolveTests(Case):
    def test_a_tag_is_pinned_to_the_digest_of_its_manifest(self) -> None:
        for docker in (False, True):
            pushed = self.push("1", docker=docker)
            found = self.resolve()
            self.assertEqual((pushed["digest"], self.size), (found.pin, found.size))
            self.assertEqual(f"{self.place}:1", found.value["image"])

    def test_no_tag_means_the_latest(self) -> None:
        self.assertEqual(self.push("latest")["digest"], self.resolve("").pin)

    def test_a_moved_tag_moves_only_later_pins(self) -> None:
        first = self.push("1")
        before = self.resolve()
        second = self.push("1")
        self.assertEqual((first["digest"], second["digest"]), (before.pin, self.resolve().pin))
        self.assertEqual(before.pin, self.resolve(f":1@{before.pin}").pin)

    def test_an_index_is_pinned_to_the_manifest_of_the_platform(self) -> None:
        entries = {each: self.push(each.replace("/", "-"), each) for each in ("linux/amd64", "linux/arm/v7")}
        for kind in manifests.INDEXES:
            self.client.push_manifest("1", {"manifests": list(entries.values())}, kind)
            self.assertEqual(entries["linux/amd64"]["digest"], self.resolve().pin)
            self.assertEqual(entries["linux/arm/v7"]["digest"], self.resolve(platform="linux/arm/v7").pin)

    def test_the_platforms_that_exist_are_named_where_none_fits(self) -> None:
        entries = [self.push(each.replace("/", "-"), each) for each in ("linux/s390x", "linux/arm64/v8")]
        self.client.push_manifest("1", {"manifests": entries}, manifests.OCI_INDEX)
        raised = self.assertRaises(failures.PlatformMissing, self.resolve)
        self.assertIn("linux/amd64, but for: linux/arm64/v8, linux/s390x", raised.message)

    def test_an_image_without_an_index_must_fit_the_platform_too(self) -> None:
        self.push("1", "linux/arm64")
        raised = self.assertRaises(failures.PlatformMissing, self.resolve)
        self.assertIn("linux/arm64", raised.message)
        self.resolve(platform="linux/arm64")

    def test_what_is_not_there_is_the_users_mistake(self) -> None:
        self.push("1")
        for missing in (":2", "/other:1", "@sha256:" + "0" * 64):
            raised = self.assertRaises(failures.ReferenceMissing, self.resolve, missing)
            self.assertIn("UNKNOWN", raised.message)

    def test_a_platform_that_is_none_is_the_users_mistake(self) -> None:
        for wrong in ("amd64", "", 7, ["linux/amd64"]):
            self.assertRaises(errors.InvalidRequest, self.resolve, platform=wrong)

    def test_an_image_is_pulled_and_not_read(self) -> None:
        self.push("1")
        with (
            testtools.ExpectedException(errors.NotSupported, ".*pulled by the driver that runs it"),
            self.driver.open_reference(self.resolve(), {}, deadline=20),
        ):
            pass


class PrivateTests(Case):
    """A registry that wants to know who asks."""

    @classmethod
    def make_registry(cls) -> registries.Registry:
        return registries.BasicRegistry()

    def make_options(self) -> Mapping[str, Any]:
        options = super().make_options()
        header = registries.basic(registries.USER, registries.PASSWORD)
        self.client = registries.Client(self.place, Authorization=header)
        self.path = self.context.state_dir / "auth.json"
        self.path.write_text('{"auths": {}}')
        return {**options, "auth_file": str(self.path)}

    def test_the_credentials_of_the_nodes_serve_where_a_user_gives_none(self) -> None:
        pushed = self.push("1")
        self.assertRaises(failures.ReferenceDenied, self.resolve)
        entry = {"auth": registries.basic(registries.USER, registries.PASSWORD).removeprefix("Basic ")}
        self.path.write_text(json.dumps({"auths": {self.registry.host: entry}}))
        self.assertEqual(pushed["digest"], self.resolve().pin)

    def test_a_users_own_credentials_serve_before_those(self) -> None:
        pushed, value = self.push("1"), {"image": f"{self.place}:1"}
        for password, right in ((registries.PASSWORD, True), ("wrong", False)):
            given = {"username": registries.USER, "password": password}
            if right:
                self.assertEqual(pushed["digest"], self.driver.resolve(value, given, deadline=20).pin)
            else:
                self.assertRaises(failures.ReferenceDenied, self.driver.resolve, value, given, deadline=20)

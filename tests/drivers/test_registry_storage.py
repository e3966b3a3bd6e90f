"""The storage driver registry: the kit against real registries, each with another kind of authentication."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import testtools

from funcplat.registryauth import Credentials
from funcplat.storage.registry import manifests
from funcplat.storage.registry.driver import RegistryDriver
from funcplat.testing.storage import StorageDriverTests
from tests.drivers import registries

CREDENTIALS = {"username": registries.USER, "password": registries.PASSWORD}


class RegistryCase(StorageDriverTests):
    """The kit with a registry that all tests of a class share; each has a repository of its own."""

    driver_class = RegistryDriver
    registry: ClassVar[registries.Registry]
    credentials: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def make_registry(cls) -> registries.Registry:
        return cls.started(registries.Registry())

    @classmethod
    def started(cls, fixture: Any) -> Any:
        cls.addClassCleanup(fixture.cleanUp)
        fixture.setUp()
        return fixture

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.registry = cls.make_registry()

    def make_options(self) -> Mapping[str, Any]:
        self.repository = f"{self.registry.host}/kit/{uuid.uuid4().hex}"
        return {"repository": self.repository, **self.credentials}

    def damage(self, digest: str) -> None:
        self.registry.damage(digest)

    # -- references, as a user makes them --------------------------------------------------------------------

    def make_reference(self, data: bytes) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        self.client = registries.Client(f"{self.repository}/code", **self.authorization())
        self.pushed = self.push(data)
        return {"image": f"{self.repository}/code:1"}, self.credentials

    def change_referred(self, reference: Mapping[str, Any], data: bytes) -> None:
        before, self.pushed = self.pushed, self.push(data)
        self.client.request("DELETE", f"manifests/{before}")

    def push(self, data: bytes) -> str:
        """An artifact of one file; its digest."""
        config, layer = self.client.push_blob(b"{}", manifests.OCI_EMPTY), self.client.push_blob(data)
        value = {"artifactType": "application/vnd.example.code", "config": config, "layers": [layer]}
        return str(self.client.push_manifest("1", value, manifests.OCI_MANIFEST)["digest"])

    def authorization(self) -> dict[str, str]:
        return {}


class OpenRegistryTests(RegistryCase, testtools.TestCase):
    """Nobody needs to say who they are."""


class BasicRegistryTests(RegistryCase, testtools.TestCase):
    """Basic authentication."""

    credentials = CREDENTIALS

    @classmethod
    def make_registry(cls) -> registries.Registry:
        return cls.started(registries.BasicRegistry())

    def authorization(self) -> dict[str, str]:
        return {"Authorization": Credentials.of(CREDENTIALS).basic()}


class TokenRegistryTests(RegistryCase, testtools.TestCase):
    """A token server, whose tokens are for one repository each."""

    credentials = CREDENTIALS
    tokens: ClassVar[registries.TokenServer]

    @classmethod
    def make_registry(cls) -> registries.Registry:
        cls.tokens = cls.started(registries.TokenServer(cls.started(registries.Certificate())))
        return cls.started(registries.Registry(auth=cls.tokens.configuration))

    def authorization(self) -> dict[str, str]:
        name = self.repository.partition("/")[2]
        token = self.tokens.token([f"repository:{name}/code:pull,push,delete"])
        return {"Authorization": f"Bearer {token}"}

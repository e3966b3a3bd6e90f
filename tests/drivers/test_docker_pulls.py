"""Pulls with credentials: what the registry store resolves by a file, a real Engine pulls by that file."""

from __future__ import annotations

import datetime
import functools
import json
import pathlib
import stat
import uuid
from typing import Any

import fixtures
import testtools
from oslo_config import cfg

from funcplat import errors, plugins
from funcplat.drivers import base
from funcplat.drivers.docker import driver
from funcplat.storage.registry import failures
from tests import docker_engine
from tests.drivers import registries

RIGHT = {"username": registries.USER, "password": registries.PASSWORD}
HELPER = """#!/bin/sh
test "$1" = get || exit 1
echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'
"""


class Case(testtools.TestCase):
    """An image that only `registries.USER` may have, and that the Engine does not have yet."""

    base = "scratch"  # a small one

    def setUp(self) -> None:
        super().setUp()
        self.url = docker_engine.url()
        self.registry = self.make_registry()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.path = self.directory / "auth.json"
        self.repository = f"{self.registry.host}/team/{uuid.uuid4().hex}"
        self.image = f"{self.repository}:1"
        # Nobody's file of docker login is to be found by accident.
        self.useFixture(fixtures.EnvironmentVariable("DOCKER_CONFIG", str(self.directory / "none")))
        self.push()

    def make_registry(self) -> registries.Registry:
        return self.useFixture(registries.BasicRegistry())

    def push(self) -> None:
        unlike = {"Dockerfile": "ARG BASE\nFROM $BASE\nCOPY text /\n", "text": self.repository}
        docker_engine.user_image(self.url, self.image, unlike, self.base)
        with docker_engine.client(self.url) as engine:
            said = engine.push(self.repository, "1", auth_config=RIGHT, stream=True, decode=True)
            self.assertEqual([], [each["error"] for each in said if "error" in each])
        docker_engine.remove_image(self.url, self.image)

    def write(self, path: pathlib.Path | None = None, **entry: str) -> None:
        """One entry for the registry."""
        (path or self.path).write_text(json.dumps({"auths": {self.registry.host: entry}}))

    def context(self) -> base.Context:
        clock = functools.partial(datetime.datetime.now, datetime.UTC)
        return base.Context(str(uuid.uuid4()), self.directory, False, clock)

    def pulled(self, auth_file: str | None = "") -> base.ImageInfo:
        """What the image is, once the Engine has pulled it; by default with the credentials of the file."""
        options: dict[str, Any] = {"url": self.url}
        if auth_file is not None:
            options["auth_file"] = auth_file or str(self.path)
        own = driver.DockerDriver(docker_engine.group(**options), self.context())
        try:
            own.check()
            return own.inspect_image(self.image, 60.0)
        finally:
            own.close()

    def remove(self, info: base.ImageInfo) -> None:
        """With all of its names."""
        with docker_engine.client(self.url) as engine:
            engine.remove_image(engine.inspect_image(info.pin)["Id"], force=True)

    def resolved(self) -> str:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        storage = plugins.storage("registry", conf, self.context())
        conf.set_override("auth_file", str(self.path), group="storage_registry")
        try:
            return storage.resolve({"image": self.image}, {}, deadline=30.0).pin
        finally:
            storage.close()

    def denied(self, *words: str, auth_file: str | None = "") -> None:
        error = self.assertRaises(errors.ImageDenied, self.pulled, auth_file)
        for word in (self.image, *words):
            self.assertIn(word, error.message)
        self.assertNotIn(registries.PASSWORD, error.message)

    def alike(self) -> None:
        """What the one driver resolves with the file, the other one pulls with it."""
        info = self.pulled()
        self.assertEqual(f"{self.repository}@{self.resolved()}", info.pin)
        self.remove(info)


class BasicTest(Case):
    def test_the_right_credentials_pull_what_they_resolve(self) -> None:
        token = registries.basic(registries.USER, registries.PASSWORD).removeprefix("Basic ")
        for entry in (RIGHT, {"auth": token}):
            self.write(**entry)
            self.alike()

    def test_an_entry_for_a_part_of_a_registry_counts_before_that_of_the_registry(self) -> None:
        wrong = {"username": registries.USER, "password": "wrong"}
        part = self.repository.rpartition("/")[0]
        self.path.write_text(json.dumps({"auths": {self.registry.host: wrong, part: RIGHT}}))
        self.alike()

    def test_a_credential_helper_is_asked(self) -> None:
        program = self.directory / "docker-credential-of-the-tests"
        program.write_text(HELPER.format(USER=registries.USER, PASSWORD=registries.PASSWORD))
        program.chmod(stat.S_IRWXU)
        self.useFixture(registries.SearchPath(self.directory))
        self.path.write_text(json.dumps({"credHelpers": {self.registry.host: "of-the-tests"}}))
        self.alike()

    def test_a_new_password_needs_no_restart(self) -> None:
        own = driver.DockerDriver(docker_engine.group(url=self.url, auth_file=str(self.path)), self.context())
        self.addCleanup(own.close)
        self.write(username=registries.USER, password="wrong")
        self.assertRaises(errors.ImageDenied, own.inspect_image, self.image, 60.0)
        self.write(**RIGHT)
        self.remove(own.inspect_image(self.image, 60.0))

    def test_wrong_credentials_are_told_with_whose_they_are_and_where_they_stand(self) -> None:
        self.write(username=registries.USER, password="wrong")
        self.denied("the user 'ann'", str(self.path), "[orchestrator_docker] auth_file")
        self.assertRaises(failures.ReferenceDenied, self.resolved)

    def test_no_credentials_are_told_with_how_to_give_some(self) -> None:
        self.path.write_text('{"auths": {}}')
        self.denied("nobody", str(self.path))
        self.denied("nobody", "docker login", "[orchestrator_docker] auth_file", auth_file=None)

    def test_what_docker_login_kept_serves_where_no_file_is_configured(self) -> None:
        home = self.directory / "of-docker"
        home.mkdir()
        self.write(home / "config.json", **RIGHT)
        self.useFixture(fixtures.EnvironmentVariable("DOCKER_CONFIG", str(home)))
        self.remove(self.pulled(auth_file=None))
        self.path.write_text('{"auths": {}}')
        self.denied("nobody")  # one that is configured counts alone

    def test_a_file_that_cannot_be_used_is_told_at_start(self) -> None:
        self.path.write_text("{")
        error = self.assertRaises(errors.DriverError, self.pulled)
        self.assertIn(f"[orchestrator_docker] auth_file {self.path} is not JSON", error.message)
        self.path.unlink()
        error = self.assertRaises(errors.DriverError, self.pulled)
        self.assertIn("this server's user must read it", error.message)


class BuildTest(Case):
    def setUp(self) -> None:
        self.base = docker_engine.base_image(docker_engine.url())
        super().setUp()

    def test_the_base_of_a_runtime_is_pulled_with_credentials(self) -> None:
        self.write(**RIGHT)
        own = driver.DockerDriver(docker_engine.group(url=self.url, auth_file=str(self.path)), self.context())
        self.addCleanup(own.close)
        tag = f"funcplat-test/private:{uuid.uuid4().hex}"
        own.build_runtime("python", self.image, tag, lambda text: None)
        for name in (tag, self.image):
            docker_engine.remove_image(self.url, name)


class TokenTest(Case):
    """A registry that sends to a token server."""

    def make_registry(self) -> registries.Registry:
        self.tokens = self.useFixture(
            registries.TokenServer(self.useFixture(registries.Certificate()), life=300)
        )
        return self.useFixture(registries.Registry(auth=self.tokens.configuration))

    def test_a_password_pulls_what_it_resolves(self) -> None:
        self.write(**RIGHT)
        self.alike()

    def test_an_identity_token_pulls_what_it_resolves(self) -> None:
        self.write(identitytoken=self.tokens.identity)
        self.alike()

    def test_wrong_credentials_are_told(self) -> None:
        self.write(username=registries.USER, password="wrong")
        self.denied("the user 'ann'", str(self.path))

    def test_no_credentials_are_told(self) -> None:
        self.path.write_text('{"auths": {}}')
        self.denied("nobody")

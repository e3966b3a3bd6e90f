"""What is resolved is what a node pulls: a real Docker Engine and a registry, with the same credentials."""

from __future__ import annotations

import base64
import datetime
import functools
import io
import json
import pathlib
import tarfile
import uuid
from typing import Any

import testtools
from oslo_config import cfg

from funcplat import plugins
from funcplat.drivers.base import Context
from tests import services
from tests.drivers import registries
from tests.services import base, web

CREDENTIALS = {"username": registries.USER, "password": registries.PASSWORD}


class PullTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        socket = self.useFixture(services.use("dockerd")).settings["socket"]
        self.docker = self.enterContext(web.client("http://docker", pathlib.Path(socket)))
        self.registry = self.useFixture(registries.BasicRegistry())
        self.name = f"{self.registry.host}/team/{uuid.uuid4().hex}"
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        clock = functools.partial(datetime.datetime.now, datetime.UTC)
        context = Context("owner", pathlib.Path("/nowhere"), False, clock)
        self.driver = plugins.storage("registry", conf, context)
        self.addCleanup(self.driver.close)

    def engine(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """A call with the credentials; what the Engine says, line by line, none of which is an error."""
        given = base64.urlsafe_b64encode(json.dumps(CREDENTIALS).encode()).decode()
        answer = self.docker.post(path, params=query, headers={"X-Registry-Auth": given})
        self.assertIn(answer.status_code, (200, 201), answer.text)
        lines = [json.loads(line) for line in answer.text.splitlines() if line.strip()]
        self.assertEqual([], [line["error"] for line in lines if "error" in line])
        return lines

    def build_and_push(self, content: bytes) -> str:
        """The digest that the Engine says it pushed."""
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            files = {"Dockerfile": b"FROM scratch\nCOPY busybox text /\n", "text": content}
            files["busybox"] = pathlib.Path(base.program("busybox")).read_bytes()
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o755
                archive.addfile(member, io.BytesIO(data))
        answer = self.docker.post("/build", params={"t": f"{self.name}:1"}, content=context.getvalue())
        self.assertIn("Successfully built", answer.text)
        self.addCleanup(self.docker.delete, f"/images/{self.name}:1", params={"force": True})
        lines = self.engine(f"/images/{self.name}/push", tag="1")
        return str(next(line["aux"]["Digest"] for line in lines if "Digest" in line.get("aux", {})))

    def resolved(self) -> str:
        reference = {"source": "image", "image": f"{self.name}:1"}
        return self.driver.resolve(reference, CREDENTIALS, deadline=30.0).pin

    def test_a_node_pulls_by_the_digest_that_was_resolved_after_the_tag_has_moved(self) -> None:
        pushed = self.build_and_push(b"first")
        pin = self.resolved()
        self.assertEqual(pushed, pin)
        moved = self.build_and_push(b"second")
        self.docker.delete(f"/images/{self.name}@{pin}", params={"force": True})
        self.engine("/images/create", fromImage=self.name, tag=pin)
        self.addCleanup(self.docker.delete, f"/images/{self.name}@{pin}", params={"force": True})
        self.assertEqual((moved, True), (self.resolved(), moved != pin))
        found = self.docker.get(f"/images/{self.name}@{pin}/json").json()
        self.assertIn(f"{self.name}@{pin}", found["RepoDigests"])

"""The real servers that other tests build on answer, and do what they are for."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pathlib
import tarfile
import uuid

import httpx
import sqlalchemy
import testtools

from tests import services
from tests.services import base, keystone, kubernetes, web

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class DatabaseTests:
    """What every database server must do."""

    database: str

    def setUp(self) -> None:
        super().setUp()
        self.url = self.useFixture(services.database(self.database)).url

    def engine(self, url: str) -> sqlalchemy.Engine:
        engine = sqlalchemy.create_engine(url)
        self.addCleanup(engine.dispose)
        return engine

    def test_select_answers(self) -> None:
        with self.engine(self.url).connect() as connection:
            self.assertEqual(2, connection.execute(sqlalchemy.text("SELECT 1 + 1")).scalar_one())

    def test_rolled_back_transaction_leaves_nothing(self) -> None:
        table = sqlalchemy.Table("note", sqlalchemy.MetaData(), sqlalchemy.Column("text", sqlalchemy.Text))
        engine = self.engine(self.url)
        table.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), {"text": "kept, with ümlaut"})
        with engine.connect() as connection:
            connection.execute(table.insert(), {"text": "dropped"})
            connection.rollback()
        with engine.connect() as connection:
            rows = connection.execute(sqlalchemy.select(table.c.text)).scalars().all()
        self.assertEqual(["kept, with ümlaut"], rows)

    def test_every_test_has_a_database_of_its_own(self) -> None:
        other = self.useFixture(services.database(self.database)).url
        with self.engine(self.url).begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE mine (x INTEGER)"))
        self.assertEqual([], sqlalchemy.inspect(self.engine(other)).get_table_names())


class TestPostgreSQL(DatabaseTests, testtools.TestCase):
    database = "postgresql"


class TestMariaDB(DatabaseTests, testtools.TestCase):
    database = "mariadb"


class TestRegistry(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        settings = self.useFixture(services.use("registry")).settings
        self.registry = self.enterContext(web.client(settings["url"]))

    def push_blob(self, repository: str, data: bytes) -> dict[str, object]:
        location = self.registry.post(f"/v2/{repository}/blobs/uploads/").headers["location"]
        address = httpx.URL(location).copy_merge_params({"digest": _digest(data)})
        self.assertEqual(201, self.registry.put(address, content=data).status_code)
        return {"digest": _digest(data), "size": len(data), "mediaType": "application/octet-stream"}

    def test_pushed_artifact_is_read_back(self) -> None:
        repository, code = f"test/{uuid.uuid4().hex}", b"the code"
        configuration = {
            **self.push_blob(repository, b"{}"),
            "mediaType": "application/vnd.oci.empty.v1+json",
        }
        layers = [self.push_blob(repository, code)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": layers}
        body, path = json.dumps(manifest).encode(), f"/v2/{repository}/manifests/1.0"
        pushed = self.registry.put(path, content=body, headers={"Content-Type": MANIFEST})
        self.assertEqual(201, pushed.status_code)

        pulled = self.registry.get(path, headers={"Accept": MANIFEST})

        self.assertEqual(_digest(body), pulled.headers["docker-content-digest"])
        blob = pulled.json()["layers"][0]["digest"]
        self.assertEqual(code, self.registry.get(f"/v2/{repository}/blobs/{blob}").content)

    def test_unknown_manifest_is_404(self) -> None:
        answer = self.registry.get("/v2/nobody/manifests/1.0", headers={"Accept": MANIFEST})
        self.assertEqual(404, answer.status_code)


class TestDocker(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        settings = self.useFixture(services.use("dockerd")).settings
        self.docker = self.enterContext(web.client("http://docker", pathlib.Path(settings["socket"])))

    def build(self, tag: str) -> None:
        answer = self.docker.post("/build", params={"t": tag}, content=_build_context())
        self.assertIn("Successfully built", answer.text)
        self.addCleanup(self.docker.delete, f"/images/{tag}", params={"force": True})

    def test_built_image_runs_without_a_network(self) -> None:
        tag = f"funcplat-test-{uuid.uuid4().hex}:1"
        self.build(tag)
        body = {
            "Image": tag,
            "Cmd": ["/busybox", "ls", "/sys/class/net"],
            "HostConfig": {"NetworkMode": "none"},
            "Tty": True,  # one stream without frames
        }
        created = self.docker.post("/containers/create", json=body)
        self.assertEqual(201, created.status_code, created.text)
        path = f"/containers/{created.json()['Id']}"
        self.addCleanup(self.docker.delete, path, params={"force": True})
        started = self.docker.post(f"{path}/start")
        self.assertEqual(204, started.status_code, started.text)

        status = self.docker.post(f"{path}/wait").json()["StatusCode"]

        log = self.docker.get(f"{path}/logs", params={"stdout": True}).text
        self.assertEqual((0, ["lo"]), (status, log.split()))


def _build_context() -> bytes:
    """A tar with a Dockerfile and the one static program that the image holds."""
    files = {"Dockerfile": b"FROM scratch\nCOPY busybox /busybox\n"}
    files["busybox"] = pathlib.Path(base.program("busybox")).read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class TestKeystone(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.settings = self.useFixture(services.use("keystone")).settings

    def validate(self, token: str) -> httpx.Response:
        headers = {
            "X-Auth-Token": keystone.token_of(self.settings, "funcplat"),
            "X-Subject-Token": token,
        }
        with web.client(self.settings["url"], None, **headers) as client:
            return client.get("/auth/tokens")

    def test_issued_token_is_valid_for_its_project(self) -> None:
        answer = self.validate(keystone.token_of(self.settings, "alice"))
        self.assertEqual(200, answer.status_code)
        token = answer.json()["token"]
        self.assertEqual(self.settings["projects"]["one"], token["project"]["id"])
        self.assertEqual(["member", "reader"], sorted(role["name"] for role in token["roles"]))

    def test_invented_token_is_not_valid(self) -> None:
        self.assertEqual(404, self.validate("invented").status_code)


class TestSwift(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        identity = self.useFixture(services.use("keystone")).settings
        url = self.useFixture(services.use("swift")).settings["url"]
        headers = {"X-Auth-Token": keystone.token_of(identity, "alice")}
        account = f"{url}/v1/AUTH_{identity['projects']['one']}"
        self.swift = self.enterContext(web.client(account, None, **headers))
        self.foreign = self.enterContext(
            web.client(account, None, **{"X-Auth-Token": keystone.token_of(identity, "bob")})
        )
        self.container = f"/{uuid.uuid4().hex}"
        self.assertEqual(201, self.swift.put(self.container).status_code)

    def test_object_is_read_back(self) -> None:
        path, data = f"{self.container}/code.zip", bytes(range(256)) * 100
        self.assertEqual(201, self.swift.put(path, content=data).status_code)
        answer = self.swift.get(path)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.assertEqual((data, etag), (answer.content, answer.headers["etag"]))

    def test_another_project_is_refused(self) -> None:
        self.assertEqual(403, self.foreign.get(self.container).status_code)


class TestKubernetes(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        settings = self.useFixture(services.use("kubernetes")).settings
        self.cluster = self.enterContext(kubernetes.client(settings))

    def test_api_server_is_ready(self) -> None:
        self.assertEqual("ok", self.cluster.get("/readyz").text)

    def test_namespace_comes_and_goes(self) -> None:
        name = f"funcplat-test-{uuid.uuid4().hex[:12]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        created = self.cluster.post("/api/v1/namespaces", json=body)
        self.assertEqual(201, created.status_code, created.text)
        deleted = self.cluster.delete(f"/api/v1/namespaces/{name}")
        self.assertEqual(200, deleted.status_code, deleted.text)
        self.assertIn("deletionTimestamp", deleted.json()["metadata"])

    def test_secret_keeps_its_bytes(self) -> None:
        name, data = f"funcplat-test-{uuid.uuid4().hex[:12]}", base64.b64encode(bytes(range(256))).decode()
        path = "/api/v1/namespaces/default/secrets"
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"code": data}}
        self.assertEqual(201, self.cluster.post(path, json=body).status_code)
        self.addCleanup(self.cluster.delete, f"{path}/{name}")
        self.assertEqual(data, self.cluster.get(f"{path}/{name}").json()["data"]["code"])

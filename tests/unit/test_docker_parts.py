"""The parts of the Docker driver that ask nobody."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import tarfile
import tempfile
from typing import Any

import testtools
from oslo_config import cfg

from funcplat import errors, registryauth
from funcplat.drivers import base
from funcplat.drivers.docker import (
    building,
    containers,
    endings,
    engine,
    features,
    images,
    options,
    places,
    pulls,
)

INFO: dict[str, Any] = {
    "OSType": "linux",
    "CgroupVersion": "2",
    "CpuCfsQuota": True,
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
}
SHAPE = containers.Shape(
    "python", "sha256:1", 16 << 20, "none", "64010:64010", by_socket=True, init=False, carries=False
)


def settings(**values: Any) -> options.Settings:
    conf = cfg.ConfigOpts()
    conf([], project="funcplat", default_config_files=[], default_config_dirs=[])
    conf.register_opts(list(options.OPTS), group="orchestrator_docker")
    for name, value in values.items():
        conf.set_override(name, value, group="orchestrator_docker")
    return options.settings(conf.orchestrator_docker)


class OptionsTest(testtools.TestCase):
    def test_an_engine_of_this_machine_is_reached_by_sockets_and_another_one_by_tcp(self) -> None:
        self.assertTrue(settings().by_socket)
        far = settings(url="tcp://192.0.2.7:2376")
        self.assertEqual((False, "192.0.2.7"), (far.by_socket, far.published_on()))

    def test_what_cannot_work_is_refused(self) -> None:
        for values in (
            {"user": "nobody"},
            {"user": "0:0"},
            {"networks": ["crawler"]},
            {"images": ["python3"]},
            {"images": ["=python3"]},
            {"tls_cert": "/c"},
            {"tls_cert": "/c", "tls_key": "/k"},
        ):
            self.assertRaises(errors.ConfigError, settings, **values)

    def test_the_first_pattern_that_fits_names_the_image(self) -> None:
        found = settings(images=["openstackqinling/python*=funcplat/python:3.12", "*node*=node:1"])
        names = ("openstackqinling/python3-runtime:0.0.2", "a/nodejs", "funcplat/python:3.11")
        self.assertEqual(
            ["funcplat/python:3.12", "node:1", "funcplat/python:3.11"], [found.image(name) for name in names]
        )

    def test_the_first_pattern_that_fits_names_the_network(self) -> None:
        found = settings(networks=["*crawler*=egress", "*=other"])
        self.assertEqual(["egress", "other"], [found.network(each, "none") for each in ("a/crawler:1", "b")])
        self.assertEqual("none", settings().network("b", "none"))


class ContainersTest(testtools.TestCase):
    def test_a_worker_is_hardened(self) -> None:
        place = places.Place(pathlib.Path("/run/x"))
        body = containers.worker(settings(), SHAPE, containers.Names("me"), place)
        host = body["HostConfig"]
        self.assertEqual(("sha256:1", "64010:64010"), (body["Image"], body["User"]))
        labels = ("owner", "image", "shape", "place", "until")  # all that are read, for images have labels
        self.assertEqual({f"funcplat.{name}" for name in labels}, set(body["Labels"]))
        self.assertEqual({"Test": ["NONE"]}, body["Healthcheck"])
        self.assertEqual(
            (True, ["ALL"], "none"), (host["ReadonlyRootfs"], host["CapDrop"], host["NetworkMode"])
        )
        self.assertEqual(["no-new-privileges"], host["SecurityOpt"])
        self.assertEqual(["/run/x/s", "/run/x/code"], [mount["Source"] for mount in host["Mounts"]])
        self.assertTrue(host["Mounts"][1]["ReadOnly"])
        self.assertNotIn("Privileged", host)
        self.assertNotIn("docker.sock", str(body))

    def test_scratch_space_is_what_was_asked_for_in_all(self) -> None:
        host = containers.confined(16 << 20, "none")
        self.assertEqual(4 << 20, host["ShmSize"])
        self.assertIn(f"size={12 << 20},", host["Tmpfs"]["/tmp"])

    def test_limits_are_a_quota_and_memory_without_swap(self) -> None:
        expected = {"Memory": 64, "MemorySwap": 64, "CpuPeriod": 100_000, "CpuQuota": 30_000, "PidsLimit": 9}
        self.assertEqual(expected, containers.limits(cpu=300, memory=64, pids=9))

    def test_names_say_what_a_container_is(self) -> None:
        names = containers.Names("me")
        item = {"Id": "1", "State": "running", "Created": 5, "Names": ["/" + names.worker("a.b")]}
        found = containers.Container.listed(item)
        self.assertEqual(("w", "a.b", True), (found.kind, found.worker_id, found.runs))
        self.assertEqual("p", containers.Container.listed(item | {"Names": ["/" + names.pooled()]}).kind)
        self.assertEqual("", containers.Container.listed(item | {"Names": ["/somebody"]}).kind)
        for worker_id in ("", "../x", "a\0b", "x" * 65):
            self.assertRaises(errors.DriverError, names.worker, worker_id)

    def test_another_user_network_or_disk_is_another_shape(self) -> None:
        changes: tuple[dict[str, Any], ...] = (
            {"disk": 8 << 20},
            {"network": "egress"},
            {"user": "1:1"},
            {"image_id": "sha256:2"},
            {"init": True},
            {"carries": True},
        )
        others = {dataclasses.replace(SHAPE, **change).key for change in changes}
        self.assertEqual(len(changes) + 1, len({SHAPE.key, *others}))

    def test_an_image_that_carries_its_function_keeps_what_it_has_at_code(self) -> None:
        place = places.Place(pathlib.Path("/run/x"))
        carrier = dataclasses.replace(SHAPE, carries=True, init=True)
        host = containers.worker(settings(), carrier, containers.Names("me"), place)["HostConfig"]
        self.assertEqual(["/run/funcplat"], [mount["Target"] for mount in host["Mounts"]])
        self.assertTrue(host["Init"])


class FeaturesTest(testtools.TestCase):
    def weak(self, **changes: Any) -> set[str]:
        found = features.describe(INFO | changes, settings())
        return {each.name for each in found if each.isolation is not base.Isolation.ENFORCED}

    def test_a_good_engine_enforces_everything(self) -> None:
        self.assertEqual(set(), self.weak())
        features.check(INFO, settings(), required=True)

    def test_what_is_missing_is_told_and_refused_where_it_is_required(self) -> None:
        self.assertEqual({"memory"}, self.weak(MemoryLimit=False))
        unconfined = {"SecurityOptions": ["name=seccomp,profile=unconfined"]}
        self.assertEqual({"seccomp"}, self.weak(**unconfined))
        features.check(INFO | unconfined, settings(), required=False)
        error = self.assertRaises(
            errors.DriverError, features.check, INFO | unconfined, settings(), required=True
        )
        self.assertIn("unconfined", error.message)

    def test_an_engine_of_another_system_is_refused(self) -> None:
        windows = INFO | {"OSType": "windows"}
        self.assertRaises(errors.DriverError, features.check, windows, settings(), required=False)


class EndingsTest(testtools.TestCase):
    def sentence(self, code: int, *actions: str, oom: bool = False, complete: bool = True) -> str:
        state = {"ExitCode": code, "OOMKilled": oom, "Error": ""}
        return endings.sentence(state, [{"Action": action} for action in actions], complete)

    def test_each_end_has_its_sentence(self) -> None:
        self.assertIn("code 3", self.sentence(3, "start", "die"))
        self.assertIn("request", self.sentence(137, "start", "oom", "kill", "die", oom=True))
        self.assertIn("out of memory", self.sentence(137, "start", "oom", "die", oom=True))
        self.assertIn("restarted", self.sentence(137))
        self.assertIn("restarted", self.sentence(137, "kill", "die"))
        self.assertIn("SIGKILL", self.sentence(137, "start", "die"))

    def test_what_may_be_forgotten_is_not_made_up(self) -> None:
        self.assertIn("SIGKILL", self.sentence(137, complete=False))


class PlacesTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="places-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.places = places.Places(self.directory / "p")

    def test_a_sealed_place_cannot_be_written_by_others(self) -> None:
        place = self.places.make()
        self.assertEqual(0o777, place.sockets.stat().st_mode & 0o777)
        place.seal()
        self.assertEqual(0o755, place.sockets.stat().st_mode & 0o777)

    def test_code_is_linked_and_may_be_given_twice(self) -> None:
        code = self.directory / "code"
        (code / "a" / "b").mkdir(parents=True)
        (code / "a" / "b" / "c.py").write_text("x")
        (code / "link").symlink_to("a")
        place = self.places.make()
        place.give_code(code)
        place.give_code(code)
        self.assertTrue((place.code / "a" / "b" / "c.py").samefile(code / "a" / "b" / "c.py"))
        self.assertTrue((place.code / "link").is_symlink())

    def test_what_was_released_is_collected_at_once_unless_a_container_still_has_it(self) -> None:
        place = self.places.make()
        place.release()
        self.places.collect({str(place.path)}, 60.0)
        self.assertTrue(place.path.exists())
        self.places.collect(set(), 60.0)
        self.assertFalse(place.path.exists())
        place.release()  # of one that is gone

    def test_what_a_crash_left_is_collected_when_it_is_old(self) -> None:
        kept, left = self.places.make(), self.places.make()
        self.places.collect({str(kept.path)}, 60.0)
        self.assertTrue(left.path.exists())
        self.places.collect({str(kept.path)}, -1.0)
        self.assertEqual((True, False), (kept.path.exists(), left.path.exists()))

    def test_a_directory_that_is_too_deep_for_a_socket_is_refused(self) -> None:
        deep = places.Places(self.directory / ("x" * 100))
        self.assertRaises(errors.DriverError, deep.make)


class ClaimsTest(testtools.TestCase):
    """Who takes a container whose directory is shared."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="places-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.place = places.Places(self.directory / "p").make()

    def test_a_mark_is_taken_once(self) -> None:
        self.assertFalse(self.place.unmark())
        self.place.mark()
        self.assertEqual([True, False], [self.place.unmark(), self.place.unmark()])

    def test_what_had_no_mark_for_long_is_abandoned(self) -> None:
        self.assertFalse(self.place.is_abandoned())
        os.utime(self.place.path, (0, 0))
        self.assertTrue(self.place.is_abandoned())
        self.place.mark()
        os.utime(self.place.path, (0, 0))
        self.assertFalse(self.place.is_abandoned())
        shutil.rmtree(self.place.path)
        self.assertTrue(self.place.is_abandoned())
        self.place.mark()  # of one that is gone

    def test_a_directory_that_is_none_of_the_installations_stays(self) -> None:
        strange = self.directory / "kept"
        strange.mkdir()
        places.Places(self.directory / "p").remove(places.Place(strange))
        self.assertTrue(strange.exists())


class ImagesTest(testtools.TestCase):
    """What is read of an image."""

    def image(self, name: str, *digests: str, **configuration: Any) -> images.Image:
        found = {"Id": "sha256:i", "RepoDigests": list(digests), "Config": configuration}
        return images.Image.inspected(name, found)

    def test_a_pin_is_the_digest_that_the_registry_in_the_name_has(self) -> None:
        digest = "sha256:" + "1" * 64
        for name, digests, pin in (
            ("r.example.org/a/b:1", [f"other/b@{digest}", f"r.example.org/a/b@{digest}"], 1),
            ("docker.io/library/python:3", [f"python@{digest}"], 0),
            (f"r.example.org/a/b@{digest}", [f"r.example.org/a/b@{digest}"], 0),
        ):
            self.assertEqual(digests[pin], self.image(name, *digests).pin)
        self.assertEqual("sha256:i", self.image("r.example.org/a/b:1", f"other/b@{digest}").pin)

    def test_the_label_says_the_kind(self) -> None:
        label = containers.CONTRACT
        self.assertEqual("one-shot", self.image("a", Labels=None).kind)
        self.assertEqual("worker", self.image("a", Labels={label: "1"}).kind)
        for configuration in ({"Labels": {label: "2"}}, {"Labels": {label: "1"}, "Volumes": {"/v": {}}}):
            strange = self.image("a", **configuration)
            self.assertRaises(errors.ImageUnknown, getattr, strange, "kind")


class PullsTest(testtools.TestCase):
    def test_who_was_refused_is_told_and_what_to_mend(self) -> None:
        ann = registryauth.Credentials("ann", "secret")
        refused = engine.Refused(500, "unauthorized: authentication required")
        error = pulls.explained("r/a:1", refused, ann, "the credentials in /f")
        self.assertIsInstance(error, errors.ImageDenied)
        self.assertIn("the user 'ann'", error.message)
        self.assertIn("the credentials in /f", error.message)
        self.assertNotIn("secret", error.message)

    def test_names_are_taken_apart(self) -> None:
        digest = f"sha256:{'1' * 64}"
        for name, repository, reference in (
            ("python", "python", "latest"),
            ("r.example.org:5000/a/b", "r.example.org:5000/a/b", "latest"),
            ("r.example.org:5000/a/b:1", "r.example.org:5000/a/b", "1"),
            (f"r.example.org:5000/a/b:1@{digest}", "r.example.org:5000/a/b", digest),
        ):
            self.assertEqual((repository, reference), pulls.split(name))
        self.assertEqual(("docker.io", "library/python"), pulls.place("python:3"))

    def test_what_is_sent_is_what_is_there(self) -> None:
        self.assertEqual({}, pulls.header(registryauth.ANONYMOUS))
        self.assertEqual({"identitytoken": "t"}, pulls.header(registryauth.Credentials(identity_token="t")))


class BuildingTest(testtools.TestCase):
    def test_the_context_depends_on_contents_alone(self) -> None:
        self.assertEqual(building.context("python").getvalue(), building.context("python").getvalue())

    def test_a_context_holds_the_worker_of_its_language_and_no_other(self) -> None:
        names = {}
        for language in ("python", "nodejs"):
            with tarfile.open(fileobj=building.context(language)) as tar:
                names[language] = set(tar.getnames())
        python, node = "funcplat/worker/supervisor.py", "supervisor/supervisor.js"
        for language, own, other in (("python", python, node), ("nodejs", node, python)):
            self.assertIn(f"{building.HOUSE}/{own}", names[language])
            self.assertNotIn(f"{building.HOUSE}/{other}", names[language])
            self.assertEqual([], [name for name in names[language] if "README" in name or "pyc" in name])

    def test_each_runtime_names_a_base(self) -> None:
        self.assertEqual(
            ("python", "node"), (building.default_base("python")[:6], building.default_base("nodejs")[:4])
        )

    def test_an_unknown_language_is_refused_with_those_there_are(self) -> None:
        error = self.assertRaises(errors.ConfigError, building.context, "cobol")
        self.assertIn("python", error.message)

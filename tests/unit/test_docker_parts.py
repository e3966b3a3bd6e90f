"""The parts of the Docker driver that ask nobody."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from typing import Any

import testtools
from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.docker import building, containers, endings, features, options, places

INFO: dict[str, Any] = {
    "OSType": "linux",
    "CgroupVersion": "2",
    "CpuCfsQuota": True,
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
}
SHAPE = containers.Shape("python", "sha256:1", 16 << 20, "none", "64010:64010", by_socket=True)


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
            {"tls_cert": "/c"},
            {"tls_cert": "/c", "tls_key": "/k"},
        ):
            self.assertRaises(errors.ConfigError, settings, **values)

    def test_the_first_pattern_that_fits_names_the_network(self) -> None:
        found = settings(networks=["*crawler*=egress", "*=other"])
        self.assertEqual(["egress", "other"], [found.network(each, "none") for each in ("a/crawler:1", "b")])
        self.assertEqual("none", settings().network("b", "none"))


class ContainersTest(testtools.TestCase):
    def test_a_worker_is_hardened(self) -> None:
        place = places.Place(pathlib.Path("/run/x"))
        body = containers.worker(settings(), SHAPE, containers.Names("me").labels(), place)
        host = body["HostConfig"]
        self.assertEqual(("sha256:1", "64010:64010"), (body["Image"], body["User"]))
        self.assertEqual(
            {"funcplat.owner", "funcplat.image", "funcplat.shape", "funcplat.place"}, set(body["Labels"])
        )
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
        others = [
            containers.Shape("python", "sha256:1", 8 << 20, "none", "64010:64010", by_socket=True),
            containers.Shape("python", "sha256:1", 16 << 20, "egress", "64010:64010", by_socket=True),
            containers.Shape("python", "sha256:1", 16 << 20, "none", "1:1", by_socket=True),
            containers.Shape("python", "sha256:2", 16 << 20, "none", "64010:64010", by_socket=True),
        ]
        self.assertEqual(5, len({SHAPE.key, *(each.key for each in others)}))


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


class BuildingTest(testtools.TestCase):
    def test_the_context_depends_on_contents_alone(self) -> None:
        self.assertEqual(building.context("python").getvalue(), building.context("python").getvalue())

    def test_an_unknown_language_is_refused_with_those_there_are(self) -> None:
        error = self.assertRaises(errors.ConfigError, building.context, "cobol")
        self.assertIn("python", error.message)

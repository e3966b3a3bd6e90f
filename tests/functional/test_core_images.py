"""Functions that are images: pinned when they are made, run once for each execution."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors, plugins
from funcplat.auth.base import Identity
from funcplat.core import functions, images
from funcplat.core.functions import Changes, NewFunction
from funcplat.core.imageruns import arguments_of
from funcplat.db import models
from funcplat.drivers.base import ImageKind
from funcplat.storage import base as storage_base
from funcplat.testing import fakeimages
from tests.functional import core
from tests.functional.core import ALICE, BOB
from tests.functional.platform import until

DIGESTS = ["sha256:" + 64 * letter for letter in "abc"]
SHELL = ["/bin/sh", "-c"]


class Registry(storage_base.StorageDriver):
    """A registry whose only image is moved by the test."""

    capabilities = frozenset({storage_base.Capability.REFERENCES})
    digest = DIGESTS[0]

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def resolve(
        self, reference: Mapping[str, Any], credentials: Mapping[str, str], deadline: float
    ) -> storage_base.Reference:
        self.asked.append(reference)
        return storage_base.Reference(reference, self.digest, None)


class ImageTest(core.CoreTest):
    driver_class = fakeimages.FakeImageOrchestrator

    def setUp(self) -> None:
        self.images: dict[str, fakeimages.FakeImage] = {}
        super().setUp()
        self.put("greeter:1", "echo hello $*", 0)

    def orchestrator(self, driver_class: type[Any]) -> plugins.GuardedOrchestrator:
        guarded = super().orchestrator(driver_class)
        self.driver: Any = guarded.driver
        self.driver.images = self.images
        return guarded

    def put(self, name: str, script: str, digest: int, kind: ImageKind = ImageKind.ONE_SHOT) -> None:
        self.images[name] = fakeimages.FakeImage(DIGESTS[digest], [*SHELL, script, "greeter"], kind)

    def create(
        self, image: str = "greeter:1", identity: Identity = ALICE, on: core.Core | None = None, **fields: Any
    ) -> functions.Function:
        code = {"source": "image", "image": image, **fields.pop("code", {})}
        return (on or self.core).functions.create(identity, NewFunction(code=code, **fields), None)

    def run_once(self, function: functions.Function, text: str | None = None, timeout: float = 10.0) -> Any:
        return self.core.image_runs.run("e1", self.revision(function).id, text, timeout).outcome


class PinningTests(ImageTest):
    def test_a_function_keeps_the_image_that_its_name_meant(self) -> None:
        made = self.create()
        self.put("greeter:1", "echo moved", 1)
        self.assertEqual(
            {"source": "image", "image": "greeter:1", "digest": DIGESTS[0]}, json.loads(made.code)
        )
        self.assertEqual((None, None), (made.entry, made.runtime_id))
        self.assertEqual(b"hello world\n", self.run_once(made, "world").log)

    def test_an_update_of_the_code_looks_the_image_up_again(self) -> None:
        made = self.create()
        before = self.revision(made).id
        self.put("greeter:1", "echo moved", 1)
        changed = self.core.functions.update(ALICE, made.id, Changes(code={"source": "image"}), None)
        self.assertEqual(DIGESTS[1], json.loads(changed.code)["digest"])
        self.assertNotEqual(before, self.revision(made).id)
        self.assertEqual(b"moved\n", self.run_once(made).log)

    def test_an_update_of_the_code_to_the_same_image_makes_no_revision(self) -> None:
        made = self.create()
        before = self.revision(made).id
        self.core.functions.update(ALICE, made.id, Changes(code={"image": "greeter:1"}), None)
        self.assertEqual(before, self.revision(made).id)

    def test_other_changes_keep_the_image(self) -> None:
        made = self.create()
        self.put("greeter:1", "echo moved", 1)
        self.core.functions.update(ALICE, made.id, Changes(name="n", memory_size=2**26), None)
        self.assertEqual(2**26, self.revision(made).memory_size)
        self.assertEqual(b"hello\n", self.run_once(made).log)

    def test_another_image_replaces_it(self) -> None:
        made = self.create()
        self.put("other:1", "echo other", 1)
        changed = self.core.functions.update(ALICE, made.id, Changes(code={"image": "other:1"}), None)
        self.assertEqual("other:1", json.loads(changed.code)["image"])
        self.assertEqual(b"other\n", self.run_once(made).log)

    def test_the_registry_driver_is_asked_where_it_is_enabled(self) -> None:
        registry = Registry()
        guarded = plugins.GuardedStorage("registry", registry)
        self.addCleanup(guarded.close)
        server = self.server(references={"registry": guarded})
        made = self.create("reg.example.org:5000/team/x:1", on=server, code={"platform": "linux/arm64"})
        asked = {"image": "reg.example.org:5000/team/x:1", "platform": "linux/arm64"}
        self.assertEqual([asked], registry.asked)
        self.assertEqual(f"reg.example.org:5000/team/x@{DIGESTS[0]}", self.revision(made).image)
        self.assertEqual([], self.driver.inspected)

    def test_names_lose_tag_and_digest_and_nothing_else(self) -> None:
        cases = {
            "x": "x",
            "x:1": "x",
            "a/b:1": "a/b",
            "host:5000/a": "host:5000/a",
            "host:5000/a:2": "host:5000/a",
            "host:5000/a:2@sha256:0": "host:5000/a",
        }
        self.assertEqual(cases, {name: images.repository(name) for name in cases})

    def test_an_image_that_is_nowhere_is_the_callers_mistake(self) -> None:
        error = self.assertRaises(errors.ImageUnusable, self.create, "nothing:1")
        self.assertIn("nothing:1", error.message)
        self.assertEqual([], self.rows(models.functions))

    def test_an_image_must_be_named(self) -> None:
        for name in ("", None, 5):
            self.assertRaises(errors.InvalidRequest, self.create, name)

    def test_an_image_takes_no_package_and_no_entry(self) -> None:
        code = {"source": "image", "image": "greeter:1"}
        with self.package() as package:
            self.assertRaises(
                errors.InvalidRequest, self.core.functions.create, ALICE, NewFunction(code=code), package
            )
            made = self.create()
            update = self.core.functions.update
            self.assertRaises(errors.InvalidRequest, update, ALICE, made.id, Changes(), package)
        self.assertRaises(errors.InvalidRequest, update, ALICE, made.id, Changes(entry="main.main"), None)
        self.assertRaises(
            errors.InvalidRequest, update, ALICE, made.id, Changes(code={"source": "package"}), None
        )

    def test_an_image_cannot_be_downloaded(self) -> None:
        made = self.create()
        with self.assertRaises(errors.NotDownloadable), self.core.functions.download(ALICE, made.id):
            self.fail("there is nothing to download")

    def test_a_runtime_that_an_image_names_must_be_there(self) -> None:
        self.assertRaises(errors.NotFound, self.create, runtime_id="nowhere")
        self.assertIsNotNone(self.create(runtime_id=self.runtime()).runtime_id)

    def test_an_image_is_its_projects_alone(self) -> None:
        made = self.create()
        self.assertRaises(errors.NotFound, self.core.functions.get, BOB, made.id)

    def test_a_function_of_an_image_is_deleted_whole(self) -> None:
        made = self.create()
        self.core.functions.delete(ALICE, made.id)
        self.assertEqual([], self.rows(models.revisions))


class RunsTests(ImageTest):
    def test_the_input_is_the_arguments(self) -> None:
        made = self.create()
        self.put("greeter:1", 'printf "<%s>" "$@"', 1)
        self.core.functions.update(ALICE, made.id, Changes(code={}), None)
        listed = json.dumps({"__function_input": ["a b", "c"]})
        self.assertEqual(b"<a b><c>", self.run_once(made, listed).log)

    def test_the_exit_code_and_output_are_told(self) -> None:
        self.put("broken:1", "echo said; echo wrong >&2; exit 7", 1)
        run = self.run_once(self.create("broken:1"))
        self.assertEqual((7, b"said\nwrong\n", False), (run.exit_code, run.log, run.timed_out))

    def test_the_timeout_ends_it(self) -> None:
        self.put("slow:1", "exec sleep 60", 1)
        self.assertTrue(self.run_once(self.create("slow:1"), timeout=0.2).timed_out)

    def test_the_functions_environment_is_the_programs(self) -> None:
        self.put("env:1", 'echo "$WHO"', 1)
        made = self.create("env:1", environment={"WHO": "me"})
        self.assertEqual(b"me\n", self.run_once(made).log)

    def test_a_run_is_a_worker_while_it_lasts(self) -> None:
        self.put("slow:1", "exec sleep 60", 1)
        made = self.create("slow:1")
        run = core.spawn(lambda: self.run_once(made))
        until(lambda: self.driver.running() == 1, "it runs")
        (worker,) = self.core.workers.of(ALICE, made.id, 0)
        self.assertEqual("starting", worker.state)
        self.core.workers.reap()  # which must not take it for one that is lost
        self.assertEqual("starting", self.worker(worker.id).state)
        self.driver.close()
        self.assertRaises(errors.DriverUnavailable, run.result, core.PATIENCE)
        self.assertEqual([], self.core.workers.of(ALICE, made.id, 0))

    def test_the_caps_of_workers_hold_for_runs(self) -> None:
        server = self.server(max_per_function=1)
        self.put("slow:1", "exec sleep 60", 1)
        made = self.create("slow:1")
        revision = self.revision(made).id
        run = core.spawn(lambda: server.image_runs.run("e1", revision, None, 10.0))
        until(lambda: self.driver.running() == 1, "it runs")
        error = self.assertRaises(errors.NoCapacity, server.image_runs.run, "e2", revision, None, 10.0)
        self.assertIn("1 workers of this function", error.message)
        self.driver.close()
        self.assertRaises(errors.DriverUnavailable, run.result, core.PATIENCE)

    def test_a_run_of_a_server_that_died_leaves_its_slot(self) -> None:
        made = self.create()
        self.core.starts.intend(self.revision(made).id)
        other = self.server()
        with self.db.write() as connection:
            connection.execute(sa.delete(models.servers).where(models.servers.c.id == self.core.server_id))
        other.workers.reap()
        other.workers.stop_drained()
        self.assertEqual([], other.workers.of(ALICE, made.id, 0))

    def test_a_run_that_is_cancelled_is_killed_and_no_other(self) -> None:
        self.put("slow:1", "echo begun; exec sleep 60", 1)
        revision = self.revision(self.create("slow:1")).id
        runs = {
            name: core.spawn(lambda name=name: self.core.image_runs.run(name, revision, None, 10.0))
            for name in ("e1", "e2")
        }
        until(lambda: self.driver.running() == 2, "they run")
        self.core.image_runs.cancel("e3")
        self.core.image_runs.cancel("e1")
        self.assertEqual(137, runs["e1"].result(core.PATIENCE).outcome.exit_code)
        self.core.image_runs.cancel("e1")
        self.assertEqual(1, self.driver.running())
        self.core.image_runs.cancel("e2")
        self.assertEqual(137, runs["e2"].result(core.PATIENCE).outcome.exit_code)

    def test_a_run_that_fails_to_start_leaves_nothing(self) -> None:
        self.images["gone:1"] = fakeimages.FakeImage(DIGESTS[1], ["/no/such/program"])
        made = self.create("gone:1")
        self.assertRaises(errors.DriverError, self.run_once, made)
        self.assertEqual([], self.core.workers.of(ALICE, made.id, 0))

    def test_a_deleted_function_does_not_run(self) -> None:
        made = self.create()
        revision = self.revision(made).id
        self.core.functions.delete(ALICE, made.id)
        self.assertRaises(errors.NotFound, self.core.image_runs.run, "e1", revision, None, 1.0)

    def test_the_kind_of_an_image_is_asked_once(self) -> None:
        revision = self.revision(self.create())
        self.driver.inspected.clear()
        self.assertTrue(self.core.image_runs.is_one_shot(None, revision.image))
        self.assertTrue(self.core.image_runs.is_one_shot("fake", revision.image))
        self.assertEqual([revision.image], self.driver.inspected)

    def test_an_image_that_is_a_worker_is_no_run(self) -> None:
        self.put("worker:1", "", 1, ImageKind.WORKER)
        revision = self.revision(self.create("worker:1"))
        self.assertFalse(self.core.image_runs.is_one_shot(None, revision.image))

    def test_preparing_a_function_has_its_image_at_hand(self) -> None:
        revision = self.revision(self.create())
        self.driver.inspected.clear()
        self.core.starts.prepare(revision.id)
        self.assertEqual([revision.image], self.driver.inspected)

    def test_runs_at_once_do_not_wait_for_each_other(self) -> None:
        self.put("slow:1", "exec sleep 60", 1)
        slow, quick = self.create("slow:1"), self.create()
        ended = threading.Event()
        runs = [core.spawn(lambda: self.run_once(slow)) for _ in range(2)]
        until(lambda: self.driver.running() == 2, "it runs")
        self.assertEqual(b"hello\n", self.run_once(quick).log)
        ended.set()
        self.driver.close()
        for run in runs:
            self.assertRaises(errors.DriverUnavailable, run.result, core.PATIENCE)


class RoutesTests(ImageTest):
    def test_a_route_says_that_the_code_is_an_image(self) -> None:
        made = self.create()
        route = self.core.routes.read(made.id, 0)
        self.assertEqual(self.revision(made).image, route.image)
        self.assertEqual(
            ("available", None, None), (route.runtime_status, route.runtime_id, route.orchestrator)
        )

    def test_a_route_has_the_runtime_that_an_image_names(self) -> None:
        made = self.create(runtime_id=self.runtime())
        self.assertEqual("fake", self.core.routes.read(made.id, 0).orchestrator)


class NoRunnerTests(core.CoreTest):
    def test_without_a_driver_that_runs_images_there_are_none(self) -> None:
        code = {"source": "image", "image": "x"}
        error = self.assertRaises(
            errors.SourceUnavailable, self.core.functions.create, ALICE, NewFunction(code=code), None
        )
        self.assertIn('"docker"', error.message)


class ArgumentsTests(core.testtools.TestCase):
    def test_text_is_split_at_white_space(self) -> None:
        self.assertEqual(["a", "b"], arguments_of(" a \n b"))

    def test_an_object_has_them_under_its_key(self) -> None:
        self.assertEqual(["a", "b"], arguments_of('{"__function_input": "a b", "x": 1}'))
        self.assertEqual(["a b"], arguments_of('{"__function_input": ["a b"]}'))
        self.assertEqual(["5"], arguments_of('{"__function_input": 5}'))

    def test_nothing_is_no_argument(self) -> None:
        for text in (None, "", "{}", '{"x": 1}', '{"__function_input": null}'):
            self.assertEqual([], list(arguments_of(text)))

    def test_what_only_looks_like_an_object_is_text(self) -> None:
        self.assertEqual(["{a", "b"], arguments_of("{a b"))

    def test_an_argument_with_a_nul_is_refused(self) -> None:
        self.assertRaises(errors.InvalidRequest, arguments_of, "a\0b")

"""Drivers as strangers install them: distributions made on the spot, found by their entry points."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import logging
import pathlib
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import fixtures
import stevedore._cache
import testtools
from oslo_config import cfg

from funcplat import errors, plugins
from funcplat.drivers import base
from funcplat.plugins import AUTH, ORCHESTRATOR, STORAGE
from funcplat.storage import base as storage_base

HEAD = """
from oslo_config import cfg
from funcplat import errors
from funcplat.drivers.base import OrchestratorDriver

class Driver(OrchestratorDriver):
    opts = (
        cfg.StrOpt("host-name", default="nobody", help="A host."),
        cfg.IntOpt("size", default=7, min=1, help="A size, in bytes."),
    )
    def check_image(self, image, deadline): pass
    def start_worker(self, spec, deadline): return None
    def stop_worker(self, handle, grace, deadline): pass
    def list_workers(self, deadline): return []
"""
_numbers = itertools.count()


def context() -> base.Context:
    return base.Context("owner", pathlib.Path("/none"), False, lambda: datetime.datetime.now(datetime.UTC))


class PluginTest(testtools.TestCase):
    """Tests with distributions of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.site = self.enterContext(tempfile.TemporaryDirectory())
        self.useFixture(fixtures.MonkeyPatch("sys.path", [self.site, *sys.path]))
        # stevedore keeps what it found between processes; what is found here must not be kept.
        cache = self.enterContext(tempfile.TemporaryDirectory())
        self.useFixture(fixtures.EnvironmentVariable("XDG_CACHE_HOME", cache))
        self.useFixture(fixtures.MonkeyPatch("stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {}))
        self.useFixture(fixtures.MonkeyPatch("stevedore._cache._c", stevedore._cache.Cache()))
        self.logs = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))

    def install(
        self,
        name: str,
        source: str = HEAD,
        distribution: str = "strangers-drivers",
        kind: str = "orchestrator",
        target: str = "Driver",
    ) -> None:
        """Install a distribution that provides one driver."""
        module = f"stranger{next(_numbers)}"
        site = pathlib.Path(self.site)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[funcplat.{kind}]\n{name} = {module}:{target}\n")

    def refused(self, name: str, *words: str, kind: plugins.Kind = ORCHESTRATOR) -> None:
        error = self.assertRaises(errors.PluginError, plugins.load_class, kind, name)
        for word in words:
            self.assertIn(word, str(error))

    def conf(self, text: str = "") -> cfg.ConfigOpts:
        path = pathlib.Path(self.site) / "x.conf"
        path.write_text(text)
        conf = cfg.ConfigOpts()
        conf(["--config-file", str(path)], project="funcplat", default_config_files=[])
        return conf

    def construct(self, name: str, text: str = "") -> Any:
        return plugins.construct(ORCHESTRATOR, name, self.conf(text), context())


class LoadTests(PluginTest):
    def test_a_strangers_driver_is_loaded_by_its_name(self) -> None:
        self.install("echo")
        self.assertTrue(issubclass(plugins.load_class(ORCHESTRATOR, "echo"), base.OrchestratorDriver))

    def test_an_unknown_name_lists_what_is_installed_and_by_whom(self) -> None:
        self.install("echo")
        self.refused("podman", "'podman'", "echo (strangers-drivers)", "process (funcplat)")

    def test_an_unknown_name_says_where_drivers_come_from(self) -> None:
        self.refused("podman", "entry point in the group funcplat.orchestrator")

    def test_a_name_of_two_distributions_is_refused_naming_both(self) -> None:
        self.install("echo")
        self.install("echo", distribution="others-drivers")
        self.refused("echo", "others-drivers", "strangers-drivers", "uninstall one")

    def test_a_built_in_name_cannot_be_taken_over(self) -> None:
        self.install("process")
        self.refused("process", "funcplat", "strangers-drivers")

    def test_a_distribution_that_is_seen_twice_is_one(self) -> None:
        self.install("echo")
        self.useFixture(fixtures.MonkeyPatch("sys.path", [self.site, *sys.path]))
        plugins.load_class(ORCHESTRATOR, "echo")

    def test_another_version_of_the_interface_is_refused_naming_both(self) -> None:
        self.install("echo", HEAD + "    api_version = 99\n")
        self.refused("echo", "version 99", f"version {base.API_VERSION}")

    def test_missing_methods_are_named(self) -> None:
        self.install("echo", "from funcplat.drivers.base import OrchestratorDriver as Driver")
        self.refused("echo", "check_image", "start_worker", "stop_worker", "list_workers")

    def test_what_is_not_a_subclass_is_refused_naming_the_base(self) -> None:
        self.install("echo", "class Driver: pass")
        self.refused("echo", "is not a OrchestratorDriver")

    def test_what_is_not_a_class_is_refused(self) -> None:
        self.install("echo", "Driver = 7")
        self.refused("echo", "is not a OrchestratorDriver")

    def test_a_driver_of_another_kind_is_refused(self) -> None:
        self.install("echo", kind="storage")
        self.refused("echo", "is not a StorageDriver", kind=STORAGE)

    def test_a_failed_import_is_explained(self) -> None:
        self.install("echo", "import no_such_module")
        self.refused("echo", "strangers-drivers", "cannot be imported", "no_such_module")

    def test_a_missing_attribute_is_explained(self) -> None:
        self.install("echo", target="Nothing")
        self.refused("echo", "strangers-drivers", "cannot be imported", "Nothing")

    def test_one_broken_driver_does_not_keep_another_from_loading(self) -> None:
        self.install("broken", "import no_such_module")
        self.install("echo", distribution="others-drivers")
        plugins.load_class(ORCHESTRATOR, "echo")

    def test_built_in_drivers_are_installed_like_anybodys(self) -> None:
        for kind, name in ((ORCHESTRATOR, "process"), (STORAGE, "local"), (AUTH, "noauth"), (AUTH, "tokens")):
            self.assertTrue(issubclass(plugins.load_class(kind, name), kind.base))

    def test_the_sample_configuration_has_the_options_of_built_in_drivers_alone(self) -> None:
        self.install("echo")
        groups = {group for group, _ in plugins.list_opts()}
        self.assertIn("storage_local", groups)
        self.assertNotIn("orchestrator_echo", groups)


class OptionsTests(PluginTest):
    def test_options_have_their_defaults(self) -> None:
        self.install("echo")
        options = self.construct("echo").options
        self.assertEqual(("nobody", 7), (options.host_name, options.size))

    def test_options_are_set_in_the_group_of_the_driver(self) -> None:
        self.install("echo")
        driver = self.construct("echo", "[orchestrator_echo]\nhost_name = here\nsize = 9\n")
        self.assertEqual(("here", 9), (driver.options.host_name, driver.options.size))

    def test_a_hyphen_in_the_name_is_an_underscore_in_the_group(self) -> None:
        self.install("my-echo")
        self.assertEqual(9, self.construct("my-echo", "[orchestrator_my_echo]\nsize = 9\n").options.size)

    def test_options_are_set_by_the_environment(self) -> None:
        self.install("my-echo")
        self.useFixture(fixtures.EnvironmentVariable("OS_ORCHESTRATOR_MY_ECHO__SIZE", "9"))
        self.assertEqual(9, self.construct("my-echo").options.size)

    def test_a_bad_value_is_an_error_that_names_the_group_and_the_option(self) -> None:
        self.install("echo")
        for value in ("many", "0"):
            text = f"[orchestrator_echo]\nsize = {value}\n"
            error = self.assertRaises(errors.PluginError, self.construct, "echo", text)
            self.assertIn("orchestrator_echo", str(error))
            self.assertIn("size", str(error))

    def test_a_bad_value_in_the_environment_is_an_error_too(self) -> None:
        self.install("echo")
        self.useFixture(fixtures.EnvironmentVariable("OS_ORCHESTRATOR_ECHO__SIZE", "many"))
        self.assertIn("size", str(self.assertRaises(errors.PluginError, self.construct, "echo")))

    def test_a_required_option_that_is_not_set_is_named(self) -> None:
        self.install("echo", HEAD + '    opts = (cfg.StrOpt("url", required=True),)\n')
        error = self.assertRaises(errors.PluginError, self.construct, "echo")
        self.assertIn("[orchestrator_echo]", str(error))
        self.assertIn("url", str(error))
        text = "[orchestrator_echo]\nurl = x\n"
        self.assertEqual("x", self.construct("echo", text).options.url)

    def test_options_that_are_none_are_an_error_of_the_driver(self) -> None:
        self.install("echo", HEAD + "    opts = ('size',)\n")
        self.assertRaises(errors.PluginError, self.construct, "echo")

    def test_two_options_of_one_name_are_an_error_of_the_driver(self) -> None:
        self.install("echo", HEAD + '    opts = (cfg.StrOpt("a"), cfg.IntOpt("a"))\n')
        self.assertRaises(errors.PluginError, self.construct, "echo")

    def test_constructing_twice_registers_once(self) -> None:
        self.install("echo")
        conf = self.conf()
        for _ in range(2):
            plugins.construct(ORCHESTRATOR, "echo", conf, context())

    def test_a_constructor_that_raises_is_explained(self) -> None:
        self.install("echo", HEAD + "    def __init__(self, options, context): 1 / 0\n")
        error = self.assertRaises(errors.PluginError, self.construct, "echo")
        self.assertIn("echo", str(error))
        self.assertIsInstance(error.__cause__, ZeroDivisionError)

    def test_a_constructor_that_says_why_is_heard(self) -> None:
        raising = "    def __init__(self, options, context): raise errors.DriverError('no such host')\n"
        self.install("echo", HEAD + raising)
        error = self.assertRaises(errors.ConfigError, self.construct, "echo")
        self.assertIn("no such host", str(error))


class Scripted(base.OrchestratorDriver):
    """Does what a test says."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act
        self.closed = 0

    def check(self) -> None:
        self.act()

    def close(self) -> None:
        self.closed += 1

    def check_image(self, image: str, deadline: float) -> None:
        self.act()

    def start_worker(self, spec: base.WorkerSpec, deadline: float) -> base.Handle:
        return self.act()  # type: ignore[no-any-return]

    def stop_worker(self, handle: base.Handle, grace: float, deadline: float) -> None:
        self.act()

    def list_workers(self, deadline: float) -> Any:
        return self.act()


def fail(error: BaseException) -> Callable[[], Any]:
    def act() -> None:
        raise error

    return act


class GuardTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logs = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))

    def guard(self, act: Callable[[], Any]) -> plugins.GuardedOrchestrator:
        guarded = plugins.GuardedOrchestrator("echo", Scripted(act))
        self.addCleanup(guarded.close)
        return guarded

    def test_a_call_returns_what_the_driver_returns(self) -> None:
        handle = base.Handle("w", base.Address(socket="/s"))
        self.assertIs(handle, self.guard(lambda: handle).start_worker(None, 5))

    def test_a_driver_that_does_not_answer_times_out(self) -> None:
        hanging = threading.Event()
        self.addCleanup(hanging.set)
        guarded = self.guard(lambda: hanging.wait(20))
        error = self.assertRaises(errors.DriverTimeout, guarded.check_image, "x", 0.05)
        self.assertIn("driver echo: check_image did not answer within 0.05 s", str(error))

    def test_a_hanging_call_does_not_keep_others_waiting(self) -> None:
        hanging, calls = threading.Event(), []
        self.addCleanup(hanging.set)
        guarded = self.guard(lambda: hanging.wait(20) if not calls else None)
        self.assertRaises(errors.DriverTimeout, guarded.check_image, "x", 0.05)
        calls.append(1)
        self.assertIsNone(guarded.check_image("x", 5))

    def test_what_a_driver_may_not_raise_is_a_driver_error_with_its_cause(self) -> None:
        cause = ZeroDivisionError("a defect")
        error = self.assertRaises(errors.DriverError, self.guard(fail(cause)).check_image, "x", 5)
        self.assertIs(cause, error.__cause__)
        self.assertIn("driver echo: check_image failed: ZeroDivisionError: a defect", str(error))

    def test_what_a_driver_may_not_raise_is_logged_with_its_traceback(self) -> None:
        self.assertRaises(errors.DriverError, self.guard(fail(KeyError("x"))).check_image, "x", 5)
        self.assertIn("driver echo: check_image raised what it may not raise", self.logs.output)
        self.assertIn("Traceback", self.logs.output)

    def test_a_timeout_of_the_drivers_own_is_not_the_guards(self) -> None:
        error = self.assertRaises(errors.DriverError, self.guard(fail(TimeoutError())).check_image, "x", 5)
        self.assertNotIsInstance(error, errors.DriverTimeout)

    def test_a_driver_error_passes_as_it_is(self) -> None:
        for error in (errors.NoCapacity("full"), errors.DriverUnavailable(), errors.InvalidRequest("bad")):
            raised = self.assertRaises(type(error), self.guard(fail(error)).check_image, "x", 5)
            self.assertIs(error, raised)
        self.assertNotIn("may not raise", self.logs.output)

    def test_an_error_of_the_platform_that_is_no_drivers_is_translated(self) -> None:
        guarded = self.guard(fail(errors.WorkerError("x")))
        self.assertRaises(errors.DriverError, guarded.check_image, "x", 5)

    def test_check_is_guarded(self) -> None:
        self.assertRaises(errors.DriverError, self.guard(fail(OSError("x"))).check)

    def test_a_generator_works_behind_the_guard(self) -> None:
        def generate() -> Iterator[int]:
            yield 1
            raise ZeroDivisionError

        self.assertRaises(errors.DriverError, self.guard(generate).list_workers, 5)

    def test_a_generator_works_within_the_deadline(self) -> None:
        hanging = threading.Event()
        self.addCleanup(hanging.set)

        def generate() -> Iterator[int]:
            hanging.wait(20)
            yield 1

        self.assertRaises(errors.DriverTimeout, self.guard(generate).list_workers, 0.05)

    def test_a_list_may_be_any_iterable(self) -> None:
        for value in ([1], (1,), iter([1])):
            self.assertEqual([1], self.guard(lambda value=value: value).list_workers(5))

    def test_a_slow_call_is_told(self) -> None:
        self.patch(plugins, "SLOW", 0.0)
        self.guard(lambda: None).check_image("x", 5)
        self.assertIn("driver echo: check_image took", self.logs.output)

    def test_a_second_close_is_a_no_op(self) -> None:
        guarded = self.guard(lambda: None)
        guarded.close()
        guarded.close()

    def test_a_call_after_close_is_unavailable(self) -> None:
        guarded = self.guard(lambda: None)
        guarded.close()
        self.assertRaises(errors.DriverUnavailable, guarded.check_image, "x", 5)

    def test_a_capability_that_is_not_there_is_said_so(self) -> None:
        self.assertRaises(errors.NotSupported, self.guard(lambda: None).pool, "x", 5)


class Store(storage_base.StorageDriver):
    """Opens packages as a test says."""

    def __init__(self, chunks: Callable[[], Iterator[bytes]], at_exit: BaseException | None = None) -> None:
        self.chunks = chunks
        self.at_exit = at_exit

    @contextlib.contextmanager
    def open(self, digest: str, deadline: float) -> Iterator[Iterator[bytes]]:
        yield self.chunks()
        if self.at_exit is not None:
            raise self.at_exit

    def list_packages(self, deadline: float) -> Iterator[storage_base.PackageInfo]:
        yield storage_base.PackageInfo("d", 1)
        raise ZeroDivisionError


class GuardedStorageTests(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))

    def guard(self, driver: storage_base.StorageDriver) -> plugins.GuardedStorage:
        guarded = plugins.GuardedStorage("echo", driver)
        self.addCleanup(guarded.close)
        return guarded

    def read(self, driver: storage_base.StorageDriver) -> bytes:
        with self.guard(driver).open("d", 5) as chunks:
            return b"".join(chunks)

    def test_the_chunks_are_the_drivers(self) -> None:
        self.assertEqual(b"ab", self.read(Store(lambda: iter([b"a", b"b"]))))

    def test_an_error_between_chunks_is_translated(self) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"a"
            raise OSError("connection reset")

        error = self.assertRaises(errors.DriverError, self.read, Store(chunks))
        self.assertIn("connection reset", str(error))

    def test_a_driver_error_between_chunks_passes(self) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"a"
            raise errors.PackageCorrupt

        self.assertRaises(errors.PackageCorrupt, self.read, Store(chunks))

    def test_an_error_on_entry_is_translated(self) -> None:
        def refuse() -> Iterator[bytes]:
            raise OSError("no such host")

        self.assertRaises(errors.DriverError, self.read, Store(refuse))

    def test_an_error_at_the_end_is_translated(self) -> None:
        store = Store(lambda: iter([b"a"]), OSError("lost"))
        self.assertRaises(errors.DriverError, self.read, store)

    def test_an_error_of_the_reader_stays_the_readers(self) -> None:
        def read() -> None:
            with self.guard(Store(lambda: iter([b"a"]))).open("d", 5):
                raise KeyError("mine")

        self.assertRaises(KeyError, read)

    def test_listing_works_behind_the_guard(self) -> None:
        guarded = self.guard(Store(lambda: iter([])))
        self.assertRaises(errors.DriverError, guarded.list_packages, 5)

    def test_a_side_that_the_driver_lacks_is_said_so(self) -> None:
        guarded = self.guard(Store(lambda: iter([])))
        self.assertRaises(errors.NotSupported, guarded.put, "d", 1, io.BytesIO(b"x"), 5)

"""Configuration: where it comes from, what it refuses, and what its options say of themselves."""

from __future__ import annotations

import pathlib
import re
import tempfile
from typing import Any

import fixtures
import testtools
from oslo_config import cfg

from funcplat import conf, errors, plugins

UNITS = re.compile(
    r"\b(seconds?|bytes?|millicores|port|processes|executions|workers|calls|threads|often)\b", re.I
)
UNITS_MORE = re.compile(r"\b(files|versions|connections|ratio|nesting|user ids)\b", re.I)


class ConfTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.useFixture(fixtures.EnvironmentVariable("HOME", str(self.home)))

    def file(self, text: str, name: str = "x.conf") -> str:
        path = self.home / name
        path.write_text(text)
        return str(path)

    def load(self, text: str = "") -> cfg.ConfigOpts:
        return conf.load(["--config-file", self.file(text)])

    def refused(self, text: str, *words: str) -> None:
        error = self.assertRaises(errors.ConfigError, self.load, text)
        for word in words:
            self.assertIn(word, str(error))


class PrecedenceTests(ConfTest):
    def test_defaults_serve_this_machine_alone(self) -> None:
        loaded = self.load()
        self.assertEqual(
            ("127.0.0.1", 7070, "noauth"), (loaded.api.host, loaded.api.port, loaded.auth.driver)
        )
        self.assertEqual((["process"], ["local"]), (loaded.orchestrator.enabled, loaded.storage.enabled))

    def test_the_defaults_do_not_contradict_each_other(self) -> None:
        conf.check(self.load())

    def test_a_file_is_over_the_defaults(self) -> None:
        self.assertEqual(8080, self.load("[api]\nport = 8080\n").api.port)

    def test_a_later_file_is_over_an_earlier_one(self) -> None:
        first = self.file("[api]\nport = 8080\nthreads = 3\n", "1.conf")
        second = self.file("[api]\nport = 9090\n", "2.conf")
        loaded = conf.load(["--config-file", first, "--config-file", second])
        self.assertEqual((9090, 3), (loaded.api.port, loaded.api.threads))

    def test_the_environment_is_over_files(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("OS_API__PORT", "6060"))
        self.assertEqual(6060, self.load("[api]\nport = 8080\n").api.port)

    def test_the_environment_sets_options_without_a_group(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("OS_DEFAULT__STATE_DIR", "/somewhere"))
        self.assertEqual("/somewhere", self.load().state_dir)

    def test_the_environment_sets_lists(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("OS_ORCHESTRATOR__ENABLED", "process,docker"))
        self.assertEqual(["process", "docker"], self.load().orchestrator.enabled)

    def test_the_users_directory_is_looked_at(self) -> None:
        (self.home / ".funcplat").mkdir()
        self.file("[api]\nport = 8081\n", ".funcplat/funcplat.conf")
        self.assertEqual(8081, conf.load().api.port)

    def test_without_any_file_there_are_the_defaults(self) -> None:
        self.assertEqual(7070, conf.load(default_files=[]).api.port)

    def test_two_configurations_are_apart(self) -> None:
        one, two = self.load("[api]\nport = 1234\n"), conf.load(default_files=[])
        self.assertEqual((1234, 7070), (one.api.port, two.api.port))


class RefusalTests(ConfTest):
    def test_a_missing_file_is_named(self) -> None:
        error = self.assertRaises(errors.ConfigError, conf.load, ["--config-file", "/none/x.conf"])
        self.assertIn("/none/x.conf", str(error))

    def test_a_file_that_cannot_be_parsed_is_named(self) -> None:
        self.refused("this is no configuration\n", "x.conf")

    def test_a_file_that_is_no_text_is_refused(self) -> None:
        path = self.home / "x.conf"
        path.write_bytes(b"\xff\xfe\x00")
        self.assertRaises(errors.ConfigError, conf.load, ["--config-file", str(path)])

    def test_a_directory_is_refused(self) -> None:
        self.assertRaises(errors.ConfigError, conf.load, ["--config-file", str(self.home)])

    def test_a_value_of_the_wrong_type_is_refused_at_once(self) -> None:
        for group, option, value in (
            ("api", "port", "many"),
            ("api", "port", "70000"),
            ("api", "host", "not a host!"),
            ("api", "access_log", "perhaps"),
            ("engine", "lease", "long"),
            ("engine", "lease", "1"),
            ("scaling", "concurrency", "0"),
            ("resource_limits", "min_cpu", "x"),
            ("DEFAULT", "log_level", "LOUD"),
        ):
            self.refused(f"[{group}]\n{option} = {value}\n", option)

    def test_a_bad_value_in_the_environment_is_refused(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable("OS_API__PORT", "many"))
        self.refused("", "port")

    def test_limits_out_of_order_are_refused_with_their_values(self) -> None:
        for text in ("min_cpu = 200", "default_cpu = 400", "max_cpu = 50", "min_cpu = 0"):
            self.refused(f"[resource_limits]\n{text}\n", "min_cpu <= default_cpu <= max_cpu")
        self.refused("[resource_limits]\nmax_memory = 1\n", "memory", "33554432 and 1")
        self.refused("[resource_limits]\nmin_timeout = 10\n", "timeout", "10, 5 and 300")

    def test_a_default_orchestrator_that_is_not_enabled_is_refused(self) -> None:
        self.refused("[orchestrator]\nenabled = docker, kubernetes\n", "process", "docker, kubernetes")

    def test_a_package_store_that_is_not_enabled_is_refused(self) -> None:
        self.refused("[storage]\npackages = swift\n", "packages = swift", "enabled = local")

    def test_the_name_of_a_driver_is_not_checked_here(self) -> None:
        self.load("[orchestrator]\nenabled = strange\ndefault = strange\n[auth]\ndriver = strange\n")


class OptionsTests(testtools.TestCase):
    def options(self) -> list[tuple[str, Any]]:
        groups = [*conf.list_opts(), *plugins.list_opts()]
        return [(group, opt) for group, opts in groups for opt in opts]

    def test_every_option_has_help_of_whole_sentences(self) -> None:
        for group, opt in self.options():
            self.assertTrue(opt.help and opt.help.rstrip()[0].isalnum(), f"[{group}] {opt.name}")

    def test_every_number_says_its_unit(self) -> None:
        for group, opt in self.options():
            if isinstance(opt, cfg.IntOpt | cfg.FloatOpt):
                said = UNITS.search(opt.help) or UNITS_MORE.search(opt.help)
                self.assertTrue(said, f"[{group}] {opt.name}: {opt.help}")

    def test_every_group_can_be_named_by_an_environment_variable(self) -> None:
        for group, _ in self.options():
            self.assertTrue(re.fullmatch(r"[A-Za-z_]+", group), group)

    def test_names_of_drivers_are_no_choices(self) -> None:
        for group, opt in self.options():
            if opt.name in ("driver", "enabled", "default", "packages"):
                self.assertIsNone(getattr(opt.type, "choices", None), f"[{group}] {opt.name}")

    def test_passwords_are_secret(self) -> None:
        self.assertEqual([True], [opt.secret for opt in conf.DATABASE_OPTS if opt.name == "connection"])

    def test_the_sample_shows_no_home_of_whoever_made_it(self) -> None:
        home = str(pathlib.Path.home())
        for _, opt in self.options():
            if home in str(opt.default):
                self.assertIsNotNone(opt.sample_default)

    def test_registering_twice_is_a_no_op(self) -> None:
        options = cfg.ConfigOpts()
        conf.register_opts(options)
        conf.register_opts(options)

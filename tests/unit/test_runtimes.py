"""The files of runtimes: what an installed package has of them."""

from __future__ import annotations

import configparser
import pathlib

import testtools

from funcplat import errors, runtimes

ROOT = pathlib.Path(__file__).resolve().parents[2]


class RuntimesTest(testtools.TestCase):
    def test_each_language_has_a_directory_of_the_checkout(self) -> None:
        self.assertEqual(["nodejs", "python"], runtimes.languages())
        for language in runtimes.languages():
            self.assertEqual(ROOT / "runtimes" / language, runtimes.directory(language))

    def test_an_unknown_language_names_those_that_there_are(self) -> None:
        for language in ("cobol", "", "..", "__pycache__"):
            error = self.assertRaises(errors.ConfigError, runtimes.directory, language)
            self.assertIn("nodejs, python", error.message)

    def test_a_wheel_takes_every_file_but_those_for_readers_of_the_source(self) -> None:
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        patterns = setup["options.package_data"]["funcplat.runtimes"].split()
        directory = ROOT / "runtimes"
        taken = {path for pattern in patterns for path in directory.glob(pattern)}
        files = {
            path for path in directory.glob("*/**/*") if path.is_file() and "__pycache__" not in path.parts
        }
        self.assertEqual({"README.rst"}, {path.name for path in files - taken})
        self.assertEqual(set(), taken - files)

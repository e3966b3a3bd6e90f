"""What README.rst shows is so: its commands exist, its links lead somewhere, its example is printed."""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import pathlib
import re
import shlex
import textwrap
from types import ModuleType

import testtools

from funcplat.api import app
from funcplat.cmd import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.rst").read_text()
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def quickstart() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("quickstart", str(ROOT / "tools" / "quickstart"))
    spec = importlib.util.spec_from_loader("quickstart", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def console_blocks() -> list[str]:
    """What stands in the console blocks of the README, without its indentation."""
    blocks = re.findall(r"^\.\. code-block:: console\n\n((?:(?:    .*)?\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def told(pattern: str, text: str) -> str:
    """The one group of a pattern that stands in ``text``."""
    match = re.search(pattern, text)
    assert match is not None, pattern
    return match.group(1)


class TestExample(testtools.TestCase):
    def test_example_is_what_quickstart_prints(self) -> None:
        module, block = quickstart(), console_blocks()[0]
        facts = module.Facts(
            url=told("The platform is at (http://[0-9.:]+)[.]", block),
            runtime=module.Found(told(rf"python3, ({UUID}) [(]new[)]", block), True),
            function=module.Found(told(rf"hello, ({UUID}) [(]new[)]", block), True),
            returned='"Hello, Ann!"',
            queued=told(rf"to execution ({UUID})", block),
            queued_returned='"Hello, Bo!"',
        )
        story = module.story(facts, ROOT)
        self.assertIn(story, block)
        source = (ROOT / "tools" / "quickstart").read_text()
        around = [line for line in block.replace(story, "").splitlines() if line]
        self.assertEqual("$ tools/quickstart", around.pop(0))
        self.assertEqual([], [line for line in around if line not in source])

    def test_example_function_returns_what_is_shown(self) -> None:
        names: dict[str, object] = {}
        exec(quickstart().SOURCE.read_text(), names)  # it is ours
        function = names["main"]
        assert callable(function)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(("Hello, Ann!", "Hello, Bo!"), (function(name="Ann"), function(name="Bo")))


class TestCommands(testtools.TestCase):
    def test_commands_in_tools_can_be_run(self) -> None:
        commands = re.findall(r"^ +(tools/\w+)$", README, re.MULTILINE)
        self.assertEqual(["tools/quickstart", "tools/test"], commands)
        for command in commands:
            self.assertTrue(os.access(ROOT / command, os.X_OK), command)

    def test_command_lines_are_understood(self) -> None:
        lines = re.findall(r"^[ $]+\.venv/bin/funcplat (.*)$", README, re.MULTILINE)
        lines += re.findall(r"``funcplat (\w.*?)``", README)
        self.assertGreater(len(lines), 6)
        for line in lines:
            self.understand(line)

    def understand(self, line: str) -> None:
        application = main.Application()
        options, rest = application.parser.parse_known_args(shlex.split(line))
        factory, name, rest = application.command_manager.find_command(rest)
        factory(application, options, cmd_name=name).get_parser(name).parse_intermixed_args(rest)

    def test_requests_are_of_the_api(self) -> None:
        patterns = [re.sub(r"\{\w+\}", UUID, route.path) for route in app.ROUTES]
        paths = re.findall(r"curl http://127\.0\.0\.1:7070(\S*)", README)
        self.assertGreater(len(paths), 4)
        strangers = [path for path in paths if not any(re.fullmatch(each, path) for each in patterns)]
        self.assertEqual([], strangers)

    def test_links_lead_to_files(self) -> None:
        links = re.findall(r"<([\w./-]+)>`_", README)
        self.assertIn("LICENSE", links)
        self.assertEqual([], [link for link in links if not (ROOT / link).is_file()])


class TestQuickstart(testtools.TestCase):
    def test_old_pythons_can_read_as_far_as_the_message(self) -> None:
        tree = ast.parse((ROOT / "tools" / "quickstart").read_text(), feature_version=(3, 7))
        told_at, annotated_at = 0, []
        for node in tree.body:
            if isinstance(node, ast.If) and "use_the_right_python" in ast.unparse(node):
                told_at = node.lineno
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                annotated_at.append(node.lineno)
        self.assertGreater(told_at, 0)
        self.assertGreater(min(annotated_at), told_at)

    def test_lines_work_from_elsewhere_too(self) -> None:
        module = quickstart()
        found = module.Found("1", False)
        facts = module.Facts("http://127.0.0.1:7171", found, found, "1", "2", "3")
        story = module.story(facts, pathlib.Path("/"))
        self.assertIn(f"{ROOT}/.venv/bin/funcplat --endpoint http://127.0.0.1:7171 invoke hello", story)
        self.assertNotIn(" .venv", story)

    def test_no_network_is_explained(self) -> None:
        explained = quickstart()._explained("pip: Temporary failure in name resolution")
        self.assertIn("Is there a network?", explained)
        self.assertEqual("disk full", quickstart()._explained("disk full"))

"""Rules of the house that a program can check."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import testtools

from funcplat import conf, errors, plugins

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LONGEST_MODULE = 400
METHODS = "GET|POST|PUT|PATCH|DELETE|HEAD"
# what a machine of a developer has and a user's has not; spelled so that this file does not match
FOREIGN_PATHS = re.compile(r"/(?:home|Users)/[a-z]\w*/\w|/root/[.\w]|[.]pyenv/versions")
# /home and /Users of examples in the documents
EXAMPLE_USERS = re.compile(r"/(?:home|Users)/(?:user|you|ann|bob|funcplat)/")


def documents() -> str:
    """The text of all of docs/."""
    paths = sorted(path for path in DOCS.rglob("*.rst") if "_build" not in path.parts)
    return "\n".join(path.read_text() for path in paths)


def subclasses(cls: type) -> Iterator[type]:
    yield cls
    for child in cls.__subclasses__():
        yield from subclasses(child)


def absent(words: Iterable[str], text: str) -> list[str]:
    """Those of ``words`` that do not stand in ``text`` as words of their own."""
    return sorted(
        word for word in set(words) if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
    )


def documented_routes(text: str) -> set[tuple[str, str]]:
    """Pairs of method and path in ``text``, such as ``GET, PUT /v1/functions/{id}``."""
    found = set()
    for methods, path in re.findall(rf"((?:\b(?:{METHODS})\b[\s,`*|/]*)+)(/[\w{{}}/.:-]*)", text):
        found |= {(method, nameless(path)) for method in re.findall(METHODS, methods)}
    return found


def nameless(path: str) -> str:
    """A path with its fields' names taken out, as documents may name them otherwise."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/.:") or "/"


def kept_files() -> list[pathlib.Path]:
    """The files of the repository, those included that are new and not ignored."""
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listing += ["--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


class TestDocuments(testtools.TestCase):
    def test_every_option_is_documented(self) -> None:
        options = {
            (group, option.name)
            for group, group_options in [*conf.list_opts(), *plugins.list_opts()]
            for option in group_options
        }
        text = documents()
        self.assertEqual([], absent((name for _, name in options), text))
        groups = {f"[{group}]" for group, _ in options if group != "DEFAULT"}
        self.assertEqual([], sorted(group for group in groups if group not in text))

    def test_every_error_code_is_documented(self) -> None:
        codes = [cls.code for cls in subclasses(errors.FuncplatError) if cls.__module__ == errors.__name__]
        self.assertEqual([], absent(codes, documents()))

    def test_every_reason_code_is_documented(self) -> None:
        self.assertEqual([], absent((str(code) for code in errors.ReasonCode), documents()))

    def test_every_route_is_documented(self) -> None:
        # imported here so that a defect of the API leaves the other rules standing
        from funcplat.api import app

        routes = {(method, nameless(route.path)) for route in app.ROUTES for method in route.methods}
        text = (DOCS / "user" / "api.rst").read_text()
        self.assertEqual([], sorted(routes - documented_routes(text)))

    def test_error_codes_are_unique(self) -> None:
        codes = [cls.code for cls in subclasses(errors.FuncplatError) if cls.__module__ == errors.__name__]
        self.assertEqual(sorted(set(codes)), sorted(codes))


class TestFiles(testtools.TestCase):
    def test_generated_files_are_fresh(self) -> None:
        command = [sys.executable, ROOT / "tools" / "generate", "--check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_no_file_holds_a_path_of_a_developers_machine(self) -> None:
        found = []
        for path in kept_files():
            text = EXAMPLE_USERS.sub("", path.read_bytes().decode(errors="replace"))
            found += [f"{path.relative_to(ROOT)}: {match}" for match in FOREIGN_PATHS.findall(text)]
        self.assertEqual([], found)

    def test_what_sets_up_a_new_machine_needs_no_library(self) -> None:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests import environments, packages"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
        )
        self.assertEqual(0, done.returncode, done.stderr)

    def test_modules_are_short(self) -> None:
        lengths = {
            str(path.relative_to(ROOT)): len(path.read_text().splitlines())
            for path in (ROOT / "funcplat").rglob("*.py")
        }
        self.assertEqual({}, {path: length for path, length in lengths.items() if length > LONGEST_MODULE})


class TestTheseRules(testtools.TestCase):
    """The rules above would be worth nothing if they could not fail."""

    def test_word_is_not_found_inside_another(self) -> None:
        self.assertEqual(["timeout"], absent(["timeout"], "import_timeout idle-timeout timeouts"))
        self.assertEqual([], absent(["timeout"], "the ``timeout`` of"))

    def test_routes_are_found_in_documents(self) -> None:
        text = "``GET, PUT /v1/functions/{id}`` and\n\nPOST ``/v1/runtimes``. DELETE /v1/jobs/{job_id}."
        functions, jobs = "/v1/functions/{}", "/v1/jobs/{}"
        expected = {("GET", functions), ("PUT", functions), ("POST", "/v1/runtimes"), ("DELETE", jobs)}
        self.assertEqual(expected, documented_routes(text))

    def test_foreign_paths_are_found(self) -> None:
        for path in ("home/jo/x", "Users/Jo/x".lower().replace("users", "Users"), "root/.cache"):
            self.assertIsNotNone(FOREIGN_PATHS.search(f"/{path}"), path)
        self.assertIsNone(FOREIGN_PATHS.search("see /home and root/"))

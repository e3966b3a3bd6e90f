import io
import os
import pathlib
import stat
import zipfile

import fixtures
import testtools

from funcplat.cmd import failures, ignore, multipart, package
from tests import cli_server


class FolderCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.folder = self.home / "function"
        self.folder.mkdir()

    def write(self, name, content=""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def pack(self):
        made = package.from_directory(self.folder)
        self.addCleanup(made.file.close)
        return made

    def names(self):
        return zipfile.ZipFile(self.pack().file).namelist()


class PackageTests(FolderCase):
    def test_members_are_sorted_and_have_their_content(self):
        for name in ("main.py", "b/two.py", "b/one.py", "a.txt"):
            self.write(name, f"# {name}")
        archive = zipfile.ZipFile(self.pack().file)
        self.assertEqual(["a.txt", "b/one.py", "b/two.py", "main.py"], archive.namelist())
        self.assertEqual(b"# b/one.py", archive.read("b/one.py"))

    def test_the_same_content_gives_the_same_bytes_whenever_it_was_written(self):
        self.write("main.py", "x = 1")
        first = self.pack().file.read()
        os.utime(self.folder / "main.py", (1e9, 1e9))
        self.assertEqual(first, self.pack().file.read())

    def test_executables_stay_executable_and_other_modes_do_not_matter(self):
        self.write("run.sh").chmod(0o700)
        self.write("main.py").chmod(0o600)
        modes = {
            member.filename: stat.S_IMODE(member.external_attr >> 16)
            for member in zipfile.ZipFile(self.pack().file).infolist()
        }
        self.assertEqual({"main.py": 0o644, "run.sh": 0o755}, modes)

    def test_what_develops_but_does_not_run_is_left_out_and_said(self):
        for name in ("main.py", "__pycache__/main.pyc", ".git/HEAD", ".venv/lib/x.py", "sub/__pycache__/y"):
            self.write(name)
        made = self.pack()
        self.assertEqual(["main.py"], zipfile.ZipFile(made.file).namelist())
        self.assertEqual((".git/", ".venv/", "__pycache__/", "sub/__pycache__/"), made.left_out)

    def test_a_large_package_is_made_outside_of_memory(self):
        (self.folder / "data").write_bytes(os.urandom(package.IN_MEMORY + 1))
        self.assertEqual(["data"], self.names())

    def test_an_empty_folder_is_refused(self):
        self.assertRaises(failures.UsageFailure, self.pack)

    def test_a_missing_folder_is_refused(self):
        self.assertRaises(failures.UsageFailure, package.from_directory, self.home / "missing")

    def test_a_file_that_cannot_be_imported_is_refused(self):
        for name in ("my-function.py", "notes.txt", "a.b.py", "a.b.js", ".js"):
            path = self.write(name)
            self.assertRaises(failures.UsageFailure, package.from_file, path)

    def test_the_entry_of_a_file_is_its_function_main(self):
        for name in ("hello.py", "hello.js", "hello.mjs", "hello.cjs", "my-hello.js"):
            made = package.from_file(self.write(name))
            self.addCleanup(made.file.close)
            self.assertEqual(f"{name.rpartition('.')[0]}.main", made.entry)
            self.assertEqual([name], zipfile.ZipFile(made.file).namelist())

    def test_an_index_module_is_the_entry_of_a_folder_that_has_no_main_module(self):
        self.write("lib/index.js")
        self.assertIsNone(self.pack().entry)
        self.write("index.mjs")
        self.assertEqual("index.main", self.pack().entry)
        self.write("main.py")
        self.assertIsNone(self.pack().entry)

    def test_a_missing_file_is_refused(self):
        with testtools.ExpectedException(failures.UsageFailure, ".*gone.py.*"):
            package.from_file(self.home / "gone.py")


class LinkTests(FolderCase):
    def link(self, name, target):
        (self.folder / name).symlink_to(target)

    def test_a_link_inside_the_folder_is_packed_as_what_it_points_to(self):
        self.write("shared/tool.py", "x = 1")
        self.link("main.py", "shared/tool.py")
        self.link("lib", "shared")
        archive = zipfile.ZipFile(self.pack().file)
        self.assertEqual(["lib/tool.py", "main.py", "shared/tool.py"], archive.namelist())
        self.assertEqual(b"x = 1", archive.read("lib/tool.py"))

    def test_a_link_that_leaves_the_folder_is_refused(self):
        (self.home / "secret").write_text("key")
        self.link("stolen", "../secret")
        with testtools.ExpectedException(failures.UsageFailure, "stolen is a link that leaves"):
            self.pack()

    def test_a_link_to_a_directory_outside_is_refused(self):
        self.link("etc", "/etc")
        self.assertRaises(failures.UsageFailure, self.pack)

    def test_a_link_that_leaves_may_be_ignored(self):
        self.write("main.py")
        self.link("stolen", "/etc/hosts")
        self.write(ignore.FILE, "stolen\n")
        self.assertEqual(["main.py"], self.names())

    def test_a_link_to_nothing_is_refused(self):
        self.link("gone", "nowhere")
        with testtools.ExpectedException(failures.UsageFailure, "gone is a link to nothing: nowhere"):
            self.pack()

    def test_a_circle_of_links_is_refused(self):
        self.write("a/main.py")
        self.link("a/again", "..")
        with testtools.ExpectedException(failures.UsageFailure, "a/again is a link to a directory that"):
            self.pack()

    def test_what_is_neither_file_nor_directory_is_left_out_and_said(self):
        self.write("main.py")
        os.mkfifo(self.folder / "pipe")
        self.assertEqual(("pipe (neither a file nor a directory)",), self.pack().left_out)


class IgnoreTests(FolderCase):
    def left_in(self, *lines):
        self.write(ignore.FILE, "\n".join(lines))
        return self.names()

    def test_names_match_in_every_directory(self):
        for name in ("main.py", "notes.md", "doc/notes.md"):
            self.write(name)
        self.assertEqual(["main.py"], self.left_in("# what is not code", "", "*.md"))

    def test_a_slash_anchors_a_pattern_to_the_folder(self):
        for name in ("main.py", "data.json", "lib/data.json", "lib/x/data.json"):
            self.write(name)
        self.assertEqual(["lib/x/data.json", "main.py"], self.left_in("/data.json", "lib/data.json"))

    def test_a_slash_at_the_end_matches_directories_only(self):
        for name in ("main.py", "build/x", "lib/build"):
            self.write(name)
        self.assertEqual(["lib/build", "main.py"], self.left_in("build/"))

    def test_the_last_rule_that_matches_decides(self):
        for name in ("a.txt", "keep.txt", "__pycache__/x.pyc"):
            self.write(name)
        kept = self.left_in("*.txt", "!keep.txt", "!__pycache__/", "!*.pyc")
        self.assertEqual(["__pycache__/x.pyc", "keep.txt"], kept)


class MultipartTests(testtools.TestCase):
    def test_the_parts_arrive_and_the_length_is_right(self):
        seen = []
        data = b"\r\n--not a boundary\r\n" * 50000
        fields = {"name": 'ü "quoted"', "code": "{}"}
        body = multipart.body(fields, "package", 'a"b.zip', io.BytesIO(data), len(data), seen.append)
        content = b"".join(body.chunks)
        self.assertEqual(body.length, len(content))
        self.assertEqual(len(data), sum(seen))
        request = cli_server.Request("POST", "/", {}, {"content-type": body.content_type}, content)
        self.assertEqual(data, request.form["package"])
        self.assertEqual(fields, request.text_fields)

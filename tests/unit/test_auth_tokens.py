"""The auth driver tokens and its file."""

from __future__ import annotations

import asyncio
import datetime
import os
import pathlib
import re
import stat
import threading
import types
from collections.abc import Iterator

import fixtures
import testtools

from funcplat import errors
from funcplat.auth import tokenfile, tokens
from funcplat.auth.base import Identity
from funcplat.drivers.base import Context

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HASH = "sha256:" + "ab" * 32


class Case(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.path = self.directory / "tokens.toml"
        self.log = self.useFixture(fixtures.FakeLogger("funcplat"))
        self.now = NOW

    def driver(self, file: str | None = None) -> tokens.TokensDriver:
        context = Context("owner", self.directory, False, lambda: self.now)
        driver = tokens.TokensDriver(types.SimpleNamespace(file=file), context)
        self.addCleanup(lambda: asyncio.run(driver.close()))
        return driver

    def add(self, user: str = "alice", expires_at: datetime.datetime | None = None) -> str:
        token, token_hash = tokens.generate()
        tokens.add_token(self.path, token_hash, "demo", user, ["member", "admin"], expires_at)
        return token

    def rewrite(self, text: str) -> None:
        self.path.write_text(text)
        os.utime(self.path, (1, 1))

    def now_old(self, driver: tokens.TokensDriver) -> None:
        """Let a second pass."""
        driver._looked_at = float("-inf")


class AuthenticateTests(Case):
    def test_a_known_token_gives_project_user_and_roles(self) -> None:
        token = self.add()
        driver = self.driver()
        driver.check()
        expected = Identity("demo", "alice", frozenset(["member", "admin"]))
        self.assertEqual(expected, asyncio.run(driver.authenticate(token)))

    def test_no_token_an_unknown_one_and_a_hash_are_not_let_in(self) -> None:
        self.add()
        token, token_hash = tokens.generate()
        driver = self.driver()
        driver.check()
        for wrong in (None, "", token, token_hash, "\udcff", "x" * 100_000):
            self.assertRaises(errors.Unauthenticated, asyncio.run, driver.authenticate(wrong))

    def test_a_token_ends_when_it_expires(self) -> None:
        token = self.add(expires_at=NOW + datetime.timedelta(seconds=1))
        driver = self.driver()
        driver.check()
        asyncio.run(driver.authenticate(token))
        self.now = NOW + datetime.timedelta(seconds=1)
        error = self.assertRaises(errors.Unauthenticated, asyncio.run, driver.authenticate(token))
        self.assertIn("expired", error.message)

    def test_the_file_can_be_elsewhere(self) -> None:
        token = self.add()
        self.path = self.path.rename(self.directory / "other")
        driver = self.driver(str(self.path))
        driver.check()
        asyncio.run(driver.authenticate(token))


class ReloadTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.token = self.add()
        self.tokens = self.driver()
        self.tokens.check()

    def assert_known(self, token: str) -> None:
        asyncio.run(self.tokens.authenticate(token))

    def assert_unknown(self, token: str) -> None:
        self.assertRaises(errors.Unauthenticated, asyncio.run, self.tokens.authenticate(token))

    def test_a_new_token_is_known_and_an_old_one_forgotten_a_second_later(self) -> None:
        self.path.unlink()
        other = self.add("bob")
        self.assert_known(self.token)
        self.now_old(self.tokens)
        self.assert_known(other)
        self.assert_unknown(self.token)

    def test_the_first_request_after_a_pause_is_judged_by_the_new_file(self) -> None:
        self.rewrite("")
        self.now_old(self.tokens)
        self.assert_unknown(self.token)

    def test_a_bad_file_leaves_the_known_tokens_and_is_told_once(self) -> None:
        self.rewrite("[[tokens]]\nhash = 1\n")
        for _ in range(3):
            self.now_old(self.tokens)
            self.assert_known(self.token)
        self.assertEqual(1, self.log.output.count("stay valid"))
        self.assertIn("line 1", self.log.output)

    def test_a_missing_file_leaves_the_known_tokens_and_is_told_once(self) -> None:
        self.path.unlink()
        for _ in range(3):
            self.now_old(self.tokens)
            self.assert_known(self.token)
        self.assertEqual(1, self.log.output.count("stay valid"))

    def test_an_unchanged_file_is_not_read_again(self) -> None:
        grants = self.tokens._grants
        self.now_old(self.tokens)
        self.assert_known(self.token)
        self.assertIs(grants, self.tokens._grants)

    def test_requests_that_come_together_look_once(self) -> None:
        looks = []
        original = self.tokens._read_if_changed

        def look() -> None:
            looks.append(threading.current_thread().name)
            original()

        self.tokens._read_if_changed = look  # type: ignore[method-assign]

        async def many() -> None:
            self.now_old(self.tokens)
            await asyncio.gather(*(self.tokens.authenticate(self.token) for _ in range(50)))

        asyncio.run(many())
        self.assertEqual(1, len(looks))
        self.assertNotEqual(threading.main_thread().name, looks[0])


class CheckTests(Case):
    def refusal(self, text: str | bytes) -> str:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.assertRaises(errors.DriverError, self.driver().check).message

    def test_a_missing_file_is_told_with_the_command_that_makes_it(self) -> None:
        error = self.assertRaises(errors.DriverError, self.driver().check)
        self.assertIn("funcplat token create", error.message)
        self.assertIn(str(self.path), error.message)

    def test_faults_are_told_with_their_line(self) -> None:
        good = f'[[tokens]]\nhash = "{HASH}"\nproject = "p"\nuser = "u"\n'
        for table, word in self.faults():
            message = self.refusal(f"# comment\n{good}\n{table}")
            self.assertIn("line 7", message, table)
            self.assertIn(word, message)

    def faults(self) -> Iterator[tuple[str, str]]:
        table = f'[[tokens]]\nhash = "{HASH[:-1]}0"\nproject = "p"\nuser = "u"\n'
        yield table.replace(HASH[:-1] + "0", HASH), "earlier table"
        yield table.replace("sha256", "md5"), "sha256"
        yield table.replace("ab", "AB"), "lower-case"
        yield table.replace('"p"', '""'), "project"
        yield table.replace('"u"', "7"), "user"
        yield table.replace('user = "u"', ""), "user"
        yield table + 'roles = "admin"', "roles"
        yield table + "roles = [1]", "roles"
        yield table + "expires_at = 2030-01-01", "expires_at"
        yield table + "expires_at = 2030-01-01T00:00:00", "offset"
        yield table + 'role = "admin"', "'role'"

    def test_what_is_not_toml_or_not_tokens_is_told(self) -> None:
        self.assertIn("line 2", self.refusal("# tokens\nalice: admin\n"))
        self.assertIn("[[tokens]]", self.refusal("[other]\n"))
        self.assertIn("[[tokens]]", self.refusal("tokens = 3\n"))
        self.assertIn("UTF-8", self.refusal(b"# \xff\n"))

    def test_an_empty_file_lets_nobody_in(self) -> None:
        self.path.touch()
        driver = self.driver()
        driver.check()
        self.assertRaises(errors.Unauthenticated, asyncio.run, driver.authenticate("x"))

    def test_a_directory_is_an_error_and_no_traceback(self) -> None:
        self.path.mkdir()
        self.assertRaises(errors.DriverError, self.driver().check)

    def test_wide_permissions_are_warned_of(self) -> None:
        self.add()
        for mode, warned in ((0o600, False), (0o640, False), (0o644, True), (0o660, True)):
            self.path.chmod(mode)
            log = self.useFixture(fixtures.FakeLogger("funcplat"))
            self.driver().check()
            self.assertEqual(warned, "chmod 640" in log.output, oct(mode))


class FileTests(Case):
    def test_tokens_are_long_random_and_not_in_the_file(self) -> None:
        made = [self.add() for _ in range(20)]
        self.assertEqual(20, len(set(made)))
        for token in made:
            self.assertTrue(re.fullmatch(r"fp_[\w-]{43}", token), token)
            self.assertNotIn(token, self.path.read_text())

    def test_a_new_file_is_for_its_owner_alone(self) -> None:
        self.add()
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))

    def test_what_stood_in_the_file_is_kept_with_mode_and_comments(self) -> None:
        self.path.write_text("# the team's tokens")
        self.path.chmod(0o640)
        self.add()
        self.assertTrue(self.path.read_text().startswith("# the team's tokens\n\n[[tokens]]\n"))
        self.assertEqual(0o640, stat.S_IMODE(self.path.stat().st_mode))
        self.assertEqual(["tokens.toml"], os.listdir(self.directory))

    def test_a_link_stays_a_link(self) -> None:
        self.path.symlink_to(self.directory / "real")
        self.add()
        self.assertTrue(self.path.is_symlink())
        self.assertIn("[[tokens]]", (self.directory / "real").read_text())

    def test_tokens_added_at_once_are_all_there(self) -> None:
        threads = [threading.Thread(target=self.add) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(16, len(tokenfile.parse(self.path.read_text(), self.path)))

    def test_what_cannot_stand_in_the_file_is_refused_and_changes_nothing(self) -> None:
        self.add()
        before = self.path.read_text()
        for arguments in (
            ("sha256:x", "p", "u", []),
            (HASH, "", "u", []),
            (HASH, "p", 'u"\n[[tokens]]', []),
            (HASH, "p", "u", ["ü"]),
        ):
            self.assertRaises(errors.DriverError, tokens.add_token, self.path, *arguments)
        self.assertEqual(before, self.path.read_text())

    def test_quotes_in_names_stay_names(self) -> None:
        tokens.add_token(self.path, HASH, 'a"b\\c', "[[tokens]]", ["#x"])
        (grant,) = tokenfile.parse(self.path.read_text(), self.path).values()
        self.assertEqual(Identity('a"b\\c', "[[tokens]]", frozenset(["#x"])), grant.identity)

    def test_a_broken_file_is_not_extended(self) -> None:
        self.path.write_text("alice: admin\n")
        self.assertRaises(errors.DriverError, tokens.add_token, self.path, HASH, "p", "u", [])
        self.assertEqual("alice: admin\n", self.path.read_text())

"""Showing, downloading, changing and deleting functions (API.md sections 4.3 to 4.6)."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import urllib.parse
import uuid
from typing import Any

from tests.functional.platform import ApiTest, package, token_of, until

MIB = 1024 * 1024
ONE, TWO = "def main(): return 1", "def main(): return 2"


class ShowTests(ApiTest):
    def test_unknown_functions_are_404(self) -> None:
        for unknown in (str(uuid.uuid4()), "abc", "%00", "x" * 300):
            path = f"/v1/functions/{unknown}"
            self.refused(404, "not_found", self.api.get(path), "Function not found")
            self.refused(404, "not_found", self.api.get(path, download="true"), "Function not found")
            self.refused(404, "not_found", self.api.put(path, data={"name": "x"}), "Function not found")
        self.refused(404, "not_found", self.api.delete(f"/v1/functions/{uuid.uuid4()}"), "Function not found")
        self.refused(400, "invalid_request", self.api.delete("/v1/functions/abc"), "Expected a uuid")

    def test_ids_may_be_written_as_other_uuids_are(self) -> None:
        function = self.create()
        for written in (function["id"].upper(), function["id"].replace("-", "")):
            self.assertEqual(function["id"], self.ok(200, self.api.get(f"/v1/functions/{written}"))["id"])
            self.output(self.execute({"id": written}))
            self.ok(200, self.api.put(f"/v1/functions/{written}", data={"name": "x"}))
        self.ok(204, self.api.delete(f"/v1/functions/{function['id'].upper()}"))
        answer = self.api.post("/v1/executions", {"function_id": function["id"]})
        self.refused(404, "not_found", answer, "Function not found")


class DownloadTests(ApiTest):
    def test_a_package_is_downloaded_as_it_was_uploaded(self) -> None:
        data = package("def main(): pass\n" + "# much to read\n" * 100_000)
        function = self.ok(201, self.post_function(data))
        for word in ("true", "1", "yes", "on", "True", "T"):
            answer = self.api.get(f"/v1/functions/{function['id']}", download=word)
            self.assertEqual((200, "application/zip"), (answer.status_code, answer.headers["content-type"]))
            disposition = f'attachment; filename="{function["id"]}"'
            self.assertEqual(disposition, answer.headers["content-disposition"])
            self.assertEqual(str(len(data)), answer.headers["content-length"])
            self.assertNotIn("content-encoding", answer.headers)
            self.assertEqual(data, answer.content)

    def test_download_may_be_false_but_not_anything(self) -> None:
        path = f"/v1/functions/{self.create()['id']}"
        for word in ("false", "0", "no", ""):
            self.assertIn("code", self.ok(200, self.api.get(path, download=word)))
        self.refused(400, "invalid_request", self.api.get(path, download="perhaps"), "download")

    def test_large_packages_are_streamed(self) -> None:
        source = "def main(): pass\n#" + "".join(
            hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(30_000)
        )
        function = self.ok(201, self.post_function(package(source)))
        path = f"{self.api.endpoint}/v1/functions/{function['id']}?download=true"
        with self.api.http.stream("GET", path) as answer:
            chunks = [len(chunk) for chunk in answer.iter_raw()]
        self.assertGreater(len(chunks), 1)

    def test_a_download_that_is_broken_off_hurts_nobody(self) -> None:
        function = self.ok(201, self.post_function(package("def main(): pass\n#" + "x" * 5_000_000)))
        path = f"{self.api.endpoint}/v1/functions/{function['id']}?download=true"
        for _ in range(5):
            with self.api.http.stream("GET", path):
                pass
        self.ok(200, self.api.get(f"/v1/functions/{function['id']}"))


class UpdateTests(ApiTest):
    def put(self, function: dict[str, Any], **form: str) -> Any:
        return self.api.put(f"/v1/functions/{function['id']}", data=form)

    def put_package(self, function: dict[str, Any], text: str, **form: str) -> Any:
        path = f"/v1/functions/{function['id']}"
        return self.api.put(path, data=form, files={"package": ("f.zip", package(text))})

    def workers(self, function: dict[str, Any]) -> set[str]:
        answer = self.ok(200, self.admin.get(f"/v1/functions/{function['id']}/workers"))
        return {each["id"] for each in answer["workers"] if each["state"] == "ready"}

    def test_name_description_and_timeout_change_in_place(self) -> None:
        function = self.create()
        self.execute(function)
        before = self.workers(function)
        changed = self.ok(200, self.put(function, name="new", description="text", timeout="9"))
        self.assertEqual(("new", "text", 9), (changed["name"], changed["description"], changed["timeout"]))
        self.assertIsNotNone(changed["updated_at"])
        stays = ("cpu", "memory_size", "code", "entry", "runtime_id", "created_at", "project_id")
        self.assertEqual([function[key] for key in stays], [changed[key] for key in stays])
        self.execute(function)
        self.assertEqual(before, self.workers(function))

    def test_a_new_timeout_holds_for_the_next_call(self) -> None:
        function = self.create("import time\ndef main(): time.sleep(30)", timeout="30")
        self.ok(200, self.put(function, timeout="1"))
        self.assertEqual("timeout", self.execute(function)["reason"]["code"])

    def test_cpu_memory_entry_and_environment_replace_the_workers(self) -> None:
        function = self.create("import os\ndef main(): return 1\ndef other(): return os.environ.get('A', 2)")
        self.assertEqual(1, self.output(self.execute(function)))
        for form, expected in (
            ({"entry": "main.other"}, 2),
            ({"environment": '{"A": "b"}'}, "b"),
            ({"cpu": "300"}, "b"),
            ({"memory_size": str(64 * MIB)}, "b"),
            ({"memory": str(96 * MIB)}, "b"),
        ):
            before = self.workers(function)
            self.ok(200, self.put(function, **form))
            self.assertEqual(expected, self.output(self.execute(function)), form)
            self.assertEqual(set(), before & self.workers(function), form)
        shown = self.ok(200, self.api.get(f"/v1/functions/{function['id']}"))
        self.assertEqual((300, 96 * MIB, "main.other"), (shown["cpu"], shown["memory_size"], shown["entry"]))

    def test_new_code_is_called_from_the_answer_on(self) -> None:
        function = self.create(ONE)
        self.assertEqual(1, self.output(self.execute(function)))
        changed = self.ok(200, self.put_package(function, TWO, source="package"))
        self.assertEqual(hashlib.md5(package(TWO)).hexdigest(), changed["code"]["md5sum"])
        self.assertEqual([2, 2, 2], [self.output(self.execute(function)) for _ in range(3)])
        downloaded = self.api.get(f"/v1/functions/{function['id']}", download="1").content
        self.assertEqual(package(TWO), downloaded)

    def test_under_continuous_calls_no_call_fails_and_after_the_answer_only_new_code_answers(self) -> None:
        function = self.create("VERSION = 0\ndef main(): return VERSION")
        done: list[tuple[int, Any]] = []
        answered = 0  # the version whose PUT was answered last

        def call() -> None:
            api = self.caller(token_of(self.project))
            while answered < 4:
                at_least = answered
                done.append((at_least, self.execute(function, api=api)))

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            callers = [pool.submit(call) for _ in range(3)]
            try:
                for version in range(1, 5):
                    count = len(done) + 10
                    until(
                        lambda goal=count: len(done) > goal or any(c.done() for c in callers),
                        "calls are made",
                    )
                    self.ok(
                        200, self.put_package(function, f"VERSION = {version}\ndef main(): return VERSION")
                    )
                    answered = version
            finally:
                answered = 4
            for caller in callers:
                caller.result()
        self.assertEqual([], [execution for _, execution in done if execution["status"] != "success"])
        for at_least, execution in done:
            self.assertGreaterEqual(self.output(execution), at_least)

    def test_the_same_package_changes_nothing(self) -> None:
        function = self.create(ONE)
        self.execute(function)
        before = self.workers(function)
        self.ok(200, self.put_package(function, ONE))
        self.assertEqual(before, self.workers(function))

    def test_checksums(self) -> None:
        function = self.create(ONE)
        md5 = function["code"]["md5sum"]
        unchanged = json.dumps({"source": "package", "md5sum": md5})
        answer = self.put_package(function, TWO, code=unchanged)
        self.refused(400, "checksum_unchanged", answer, "checksum is not changed")
        wrong = json.dumps({"source": "package", "md5sum": "0" * 32})
        self.refused(400, "checksum_mismatch", self.put_package(function, TWO, code=wrong))
        right = json.dumps({"source": "package", "md5sum": hashlib.md5(package(TWO)).hexdigest()})
        self.ok(200, self.put_package(function, TWO, code=right))
        self.assertEqual(2, self.output(self.execute(function)))

    def test_code_without_a_package_keeps_the_checksum_and_the_code(self) -> None:
        function = self.create(ONE)
        changed = self.ok(200, self.put(function, code='{"source": "package", "mine": 1}'))
        self.assertEqual(
            (function["code"]["md5sum"], 1), (changed["code"]["md5sum"], changed["code"]["mine"])
        )
        changed = self.ok(200, self.put(function, code='{"source": "package", "md5sum": "f"}'))
        self.assertEqual(function["code"]["md5sum"], changed["code"]["md5sum"])
        self.assertEqual(1, self.output(self.execute(function)))

    def test_the_source_cannot_change(self) -> None:
        function = self.create(ONE)
        for code in ('{"source": "swift"}', '{"source": "image", "image": "x"}', '{"source": null}'):
            self.refused(
                400, "invalid_request", self.put(function, code=code), "code type can not be changed"
            )

    def test_refused_changes_change_nothing(self) -> None:
        function = self.create(ONE)
        for form, code in (
            ({"cpu": "1"}, "limit_out_of_range"),
            ({"memory_size": "1"}, "limit_out_of_range"),
            ({"timeout": "0"}, "limit_out_of_range"),
            ({"timeout": "x"}, "invalid_request"),
            ({"code": "{"}, "invalid_request"),
            ({"code": "[]"}, "invalid_request"),
            ({"name": "x" * 256}, "invalid_request"),
        ):
            self.refused(400, code, self.put(function, **{"description": "new", **form}))
        path = f"/v1/functions/{function['id']}"
        self.refused(400, "limit_out_of_range", self.api.put(path, {"timeout": 0}))
        broken = self.api.put(path, data={"name": "x"}, files={"package": ("f", b"no zip")})
        self.refused(400, "package_invalid", broken)
        self.assertEqual(function, self.ok(200, self.api.get(path)))

    def test_null_and_stray_fields_are_ignored_and_count_is_read_only(self) -> None:
        function = self.create(ONE, name="n")
        path = f"/v1/functions/{function['id']}"
        body = {"name": None, "code": None, "cpu": None, "count": 9, "latest_version": 4, "swift": "x"}
        for answer in (
            self.api.put(path, body),
            self.put(function, source="swift", swift="c", count="9"),
            self.api.put(path),
        ):
            self.assertEqual(function, self.ok(200, answer))

    def test_empty_strings_count(self) -> None:
        function = self.create(ONE, name="n", description="d")
        changed = self.ok(200, self.put(function, name="", description=""))
        self.assertEqual(("", ""), (changed["name"], changed["description"]))

    def test_json_bodies_take_code_as_object_or_string(self) -> None:
        function = self.create(ONE)
        for code in ({"source": "package", "a": 1}, '{"source": "package", "a": 2}'):
            self.ok(200, self.api.put(f"/v1/functions/{function['id']}", {"code": code, "cpu": "150"}))
        self.assertEqual(2, self.ok(200, self.api.get(f"/v1/functions/{function['id']}"))["code"]["a"])

    def test_the_runtime_may_be_changed_to_another_available_one(self) -> None:
        function = self.create(ONE)
        self.execute(function)
        before = self.workers(function)
        other = self.runtime()
        self.assertEqual(other, self.ok(200, self.put(function, runtime_id=other))["runtime_id"])
        self.assertEqual(1, self.output(self.execute(function)))
        self.assertEqual(set(), before & self.workers(function))

    def test_a_runtime_that_cannot_be_used_is_not_changed_to(self) -> None:
        function = self.create(ONE)
        private = self.runtime(is_public=False)
        for runtime in (private, str(uuid.uuid4()), "abc"):
            self.refused(404, "not_found", self.put(function, runtime_id=runtime), "Runtime not found")
        broken = self.ok(201, self.admin.post("/v1/runtimes", {"image": "no-such"}))["id"]
        self.refused(400, "invalid_request", self.put(function, runtime_id=broken), "is not available")

    def test_an_admin_changes_the_code_of_others_and_the_owner_gets_it(self) -> None:
        function = self.create(ONE)
        path = f"/v1/functions/{function['id']}"
        changed = self.ok(200, self.admin.put(path, files={"package": ("f", package(TWO))}))
        self.assertEqual(self.project, changed["project_id"])
        self.assertEqual(package(TWO), self.api.get(path, download="true").content)
        self.assertEqual(2, self.output(self.execute(function)))

    def test_a_form_is_understood_as_the_old_client_writes_it(self) -> None:
        function = self.create(ONE)
        body = urllib.parse.urlencode({"name": "a b", "description": "ü&=", "cpu": 150})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        path = f"/v1/functions/{function['id']}"
        changed = self.ok(200, self.api.put(path, content=body.encode(), headers=headers))
        self.assertEqual(("a b", "ü&=", 150), (changed["name"], changed["description"], changed["cpu"]))


class DeleteTests(ApiTest):
    def test_a_deleted_function_is_gone_and_its_executions_stay(self) -> None:
        function = self.create(ONE)
        execution = self.execute(function)
        path = f"/v1/functions/{function['id']}"
        self.assertEqual(b"", self.api.delete(path).content)
        for answer in (
            self.api.get(path),
            self.api.delete(path),
            self.api.put(path, {"name": "x"}),
            self.api.get(path, download="1"),
            self.admin.get(f"{path}/workers"),
            self.admin.post(f"{path}/detach"),
            self.admin.post(f"{path}/scale_up", {"count": 1}),
            self.api.post("/v1/executions", {"function_id": function["id"]}),
        ):
            self.refused(404, "not_found", answer, "Function not found")
        shown = self.ok(200, self.api.get(f"/v1/executions/{execution['id']}"))
        self.assertEqual((1, function["id"]), (self.output(shown), shown["function_id"]))

    def test_an_admin_of_another_project_may_not_delete(self) -> None:
        path = f"/v1/functions/{self.create(ONE)['id']}"
        self.refused(403, "forbidden", self.admin.delete(path), "Function can only be deleted by its owner.")
        self.ok(200, self.api.get(path))

    def test_two_functions_may_share_a_package(self) -> None:
        first, second = self.create(ONE), self.create(ONE)
        self.ok(204, self.api.delete(f"/v1/functions/{first['id']}"))
        self.assertEqual(1, self.output(self.execute(second)))
        self.assertEqual(package(ONE), self.api.get(f"/v1/functions/{second['id']}", download="1").content)

    def test_names_are_not_unique(self) -> None:
        ids = {self.create(ONE, name="same")["id"] for _ in range(2)}
        self.assertEqual(2, len(ids))

"""POST /v1/functions (API.md sections 4.1 and 4.2)."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
import uuid
from typing import Any, ClassVar

import httpx

from tests.functional.platform import ApiTest, package

MIB = 1024 * 1024
FIELDS = {
    "id",
    "name",
    "description",
    "cpu",
    "memory_size",
    "timeout",
    "runtime_id",
    "code",
    "entry",
    "count",
    "latest_version",
    "project_id",
    "created_at",
    "updated_at",
}


class EncodingTests(ApiTest):
    def test_a_multipart_form_as_clients_send_it(self) -> None:
        data = package()
        md5 = hashlib.md5(data).hexdigest()
        form = {"name": "f", "entry": "main.main", "cpu": "200", "memory_size": str(64 * MIB), "timeout": "7"}
        made = self.ok(
            201, self.post_function(data, code=json.dumps({"source": "package", "md5sum": md5}), **form)
        )
        self.assertEqual(set(), FIELDS - made.keys())
        self.assertEqual(
            (200, 64 * MIB, 7, 0, 0),
            tuple(made[k] for k in ("cpu", "memory_size", "timeout", "count", "latest_version")),
        )
        self.assertEqual({"source": "package", "md5sum": md5}, made["code"])
        self.assertEqual((self.project, None), (made["project_id"], made["updated_at"]))
        self.assertEqual(self.ok(200, self.api.get(f"/v1/functions/{made['id']}")), made)

    def test_defaults(self) -> None:
        made = self.create()
        expected = (None, None, 1000, 32 * MIB, 5, "main.main")
        self.assertEqual(
            expected,
            tuple(made[k] for k in ("name", "description", "cpu", "memory_size", "timeout", "entry")),
        )

    def test_memory_is_another_name_of_memory_size_which_wins(self) -> None:
        self.assertEqual(64 * MIB, self.create(memory=str(64 * MIB))["memory_size"])
        both = self.create(memory=str(64 * MIB), memory_size=str(96 * MIB))
        self.assertEqual(96 * MIB, both["memory_size"])
        self.assertNotIn("memory", both)

    def test_stray_fields_are_ignored_and_extra_keys_of_code_kept(self) -> None:
        code = json.dumps({"source": "package", "mine": {"a": [1, None]}})
        made = self.create(code=code, source="package", count="7", latest_version="3", colour="red", id="x")
        self.assertEqual((0, 0), (made["count"], made["latest_version"]))
        self.assertEqual({"a": [1, None]}, made["code"]["mine"])

    def test_query_parameters_count_as_fields(self) -> None:
        code = urllib.parse.quote(json.dumps({"source": "package"}))
        path = f"/v1/functions?runtime_id={self.shared_runtime()}&code={code}&name=asked"
        made = self.ok(201, self.api.post(path, files={"package": ("x", package())}))
        self.assertEqual("asked", made["name"])

    def test_the_file_part_may_have_any_name_and_type(self) -> None:
        form = {"runtime_id": self.shared_runtime(), "code": '{"source": "package"}'}
        for file in (
            ("hello.zip", package()),
            ("package", package(), "application/zip"),
            ("p", package(), "text/plain"),
        ):
            self.ok(201, self.api.post("/v1/functions", data=form, files={"package": file}))

    def test_a_file_part_without_a_content_type_is_taken(self) -> None:
        # As the old client sends it.
        body = b""
        for name, value in (("runtime_id", self.shared_runtime()), ("code", '{"source": "package"}')):
            body += f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        body += b'--b\r\nContent-Disposition: form-data; name="package"; filename="package"\r\n\r\n'
        body += package() + b"\r\n--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        self.ok(201, self.api.post("/v1/functions", content=body, headers=headers))

    def test_an_empty_name_and_an_empty_entry(self) -> None:
        made = self.create(name="", entry="", description="")
        self.assertEqual(("", "", "main.main"), (made["name"], made["description"], made["entry"]))

    def test_text_is_unicode(self) -> None:
        self.assertEqual("Grüße 🎉", self.create(name="Grüße 🎉")["name"])

    def test_code_is_an_object_except_in_lists(self) -> None:
        made = self.create()
        listed = self.ok(200, self.api.get("/v1/functions"))["functions"][0]
        self.assertIsInstance(listed["code"], str)
        self.assertEqual(made["code"], json.loads(listed["code"]))
        self.assertEqual(made, listed | {"code": made["code"]})

    def test_a_function_has_an_environment_whose_values_are_not_shown(self) -> None:
        source = "import os\ndef main(): return os.environ['COLOUR']"
        made = self.create(source, environment='{"COLOUR": "red"}')
        self.assertEqual({"COLOUR": None}, made["environment"])
        self.assertEqual("red", self.output(self.execute(made)))


class RefusalTests(ApiTest):
    def send(self, **fields: Any) -> httpx.Response:
        return self.post_function(package(), **fields)

    def assertNothingWasMade(self) -> None:
        self.assertEqual([], self.ok(200, self.api.get("/v1/functions"))["functions"])

    def test_a_function_needs_code_runtime_and_package(self) -> None:
        bad, runtime = "invalid_request", self.shared_runtime()
        code = json.dumps({"source": "package"})
        self.refused(400, bad, self.send(code=None), "code")
        self.refused(400, bad, self.send(runtime_id=None), '"runtime_id" must be specified.')
        for body in ({"code": {"source": "package"}}, {"code": code}, {"code": code, "package": "text"}):
            self.refused(400, bad, self.api.post("/v1/functions", {"runtime_id": runtime, **body}), "package")
        form = {"runtime_id": runtime, "code": code, "package": "text"}
        self.refused(400, bad, self.api.post("/v1/functions", data=form), "package")
        self.refused(400, bad, self.api.post("/v1/functions"), "code")
        self.assertNothingWasMade()

    def test_code_must_be_an_object_that_names_a_source(self) -> None:
        for code in (
            "{",
            "[]",
            "5",
            '"package"',
            "null",
            "",
            "{}",
            '{"source": ""}',
            '{"source": 5}',
            '{"source": ["a"]}',
        ):
            self.refused(400, "invalid_request", self.send(code=code))
        for value in ([], 5, "text", True, {"source": {}}):
            body = {"runtime_id": self.shared_runtime(), "code": value}
            self.refused(400, "invalid_request", self.api.post("/v1/functions", body))

    def test_code_that_cannot_be_kept_as_json_is_400(self) -> None:
        for more in ('"\\ud800"', "NaN", "Infinity", "1e999", "[" * 3000 + "]" * 3000, "9" * 5000):
            code = f'{{"source": "package", "more": {more}}}'
            self.refused(400, "invalid_request", self.send(code=code))
        self.refused(
            400, "invalid_request", self.send(code=json.dumps({"source": "package", "m": "x" * 70_000}))
        )
        self.assertNothingWasMade()

    def test_sources_whose_driver_is_not_there_are_refused_by_the_drivers_name(self) -> None:
        swift = {"source": "swift", "swift": {"container": "c", "object": "o"}}
        image = {"source": "image", "image": "x"}
        for code, driver in ((swift, '"swift"'), (image, '"docker"')):
            form = {"code": json.dumps(code), "name": "n", "timeout": "5"}
            answers = (
                self.api.post("/v1/functions", data=form),
                self.api.post("/v1/functions", {**form, "code": code}),
                self.send(code=form["code"]),
            )
            for answer in answers:
                self.refused(400, "source_unavailable", answer, driver, "enabled here")
        self.refused(400, "invalid_request", self.send(code='{"source": "floppy"}'), "floppy")

    def test_limits_are_400_with_their_range(self) -> None:
        ranges = {"cpu": (100, 2000), "memory_size": (32 * MIB, 128 * MIB), "timeout": (1, 300)}
        for name, (low, high) in ranges.items():
            word = "memory" if name == "memory_size" else name
            for value in (low - 1, high + 1, 0, -1, 10**30):
                answer = self.send(**{name: str(value)})
                self.refused(
                    400, "limit_out_of_range", answer, f"{word} resource limitation", str(low), str(high)
                )
            for value in ("many", "", "1.5", "0x10", "1e400", "9" * 5000):
                self.refused(400, "invalid_request", self.send(**{name: value}))
            body = {"runtime_id": self.shared_runtime(), "code": {"source": "package"}}
            for number in (0, low - 1):
                answer = self.api.post("/v1/functions", {**body, name: number})
                self.refused(400, "limit_out_of_range", answer)
            for other in (True, [], {}, 1.5):
                answer = self.api.post("/v1/functions", {**body, name: other})
                self.refused(400, "invalid_request", answer, name)
        self.assertNothingWasMade()

    def test_the_ends_of_a_range_are_in_it(self) -> None:
        made = self.create(cpu="2000", memory_size=str(128 * MIB), timeout="300")
        self.assertEqual((2000, 128 * MIB, 300), (made["cpu"], made["memory_size"], made["timeout"]))
        made = self.create(cpu="100", timeout="1")
        self.assertEqual((100, 1), (made["cpu"], made["timeout"]))

    def test_texts_that_are_too_long_or_cannot_be_stored_are_400(self) -> None:
        for name, longest in (("name", 255), ("description", 255), ("entry", 80)):
            self.refused(400, "invalid_request", self.send(**{name: "x" * (longest + 1)}), str(longest))
            self.refused(400, "invalid_request", self.send(**{name: "a\0b"}), name)
        self.assertEqual("x" * 255, self.create(name="x" * 255)["name"])
        for environment in (
            '{"A=B": "c"}',
            '{"": "c"}',
            '{"A": "\\u0000"}',
            '{"A": "\\ud800"}',
            '{"A": 5}',
            "[]",
        ):
            self.refused(400, "invalid_request", self.send(environment=environment))

    def test_unknown_and_unusable_runtimes(self) -> None:
        self.refused(404, "not_found", self.send(runtime_id=str(uuid.uuid4())), "Runtime not found")
        self.refused(404, "not_found", self.send(runtime_id="abc"), "Runtime not found")

    def test_a_checksum_that_does_not_match_makes_nothing(self) -> None:
        for checksum in ("0" * 32, 5, ["x"]):
            code = json.dumps({"source": "package", "md5sum": checksum})
            self.refused(400, "checksum_mismatch", self.send(code=code), "Package md5 mismatch.")
        self.assertNothingWasMade()

    def test_a_checksum_is_compared_whatever_its_case(self) -> None:
        md5 = hashlib.md5(package()).hexdigest()
        made = self.create(code=json.dumps({"source": "package", "md5sum": md5.upper()}))
        self.assertEqual(md5, made["code"]["md5sum"])

    def test_what_is_no_zip_is_no_package(self) -> None:
        for data in (b"", b"text", package()[:-10], b"\0" * 5000):
            answer = self.post_function(data)
            self.refused(400, "package_invalid", answer, "Package is not a valid ZIP package.")
        self.assertNothingWasMade()

    def test_two_packages_are_one_too_many(self) -> None:
        form = {"runtime_id": self.shared_runtime(), "code": '{"source": "package"}'}
        files = [("package", ("a", package())), ("package", ("b", package()))]
        self.refused(
            400, "invalid_request", self.api.post("/v1/functions", data=form, files=files), "more than one"
        )

    def test_bodies_that_cannot_be_read_are_400(self) -> None:
        multipart = {"Content-Type": "multipart/form-data; boundary=b"}
        for content in (
            b"",
            b"no boundary",
            b"--b\r\n",
            b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n\xff\r\n--b--\r\n',
        ):
            self.refused(
                400, "invalid_request", self.api.post("/v1/functions", content=content, headers=multipart)
            )
        bare = {"Content-Type": "multipart/form-data"}
        self.refused(400, "invalid_request", self.api.post("/v1/functions", content=b"--b--", headers=bare))
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for content in (b"name=\xff", b"&".join([b"a=1"] * 1500), b"%" * 100, b"code=%00"):
            self.refused(
                400, "invalid_request", self.api.post("/v1/functions", content=content, headers=form)
            )
        for content in (b"[]", b"{", b"5", b"\xff", b'{"a":' * 3000, b'{"name": "\\udc00"}'):
            self.refused(400, "invalid_request", self.api.post("/v1/functions", content=content))
        self.assertNothingWasMade()


class SizeTests(ApiTest):
    options: ClassVar = {"api": {"max_package_size": 100_000, "max_body_size": 20_000}}

    def test_a_package_over_the_limit_is_413(self) -> None:
        self.refused(413, "too_large", self.post_function(b"x" * 100_001), "100000")
        self.refused(400, "package_invalid", self.post_function(b"x" * 100_000))

    def test_a_field_over_its_limit_is_413(self) -> None:
        self.refused(413, "too_large", self.post_function(package(), name="x" * 300_000))

    def test_other_bodies_over_the_limit_are_413_before_they_are_read(self) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for path, headers in (
            ("/v1/functions", form),
            ("/v1/functions", {}),
            ("/v1/executions", {}),
            ("/v1/runtimes", {}),
        ):
            api = self.admin if path == "/v1/runtimes" else self.api
            answer = api.post(path, content=b"x" * 20_001, headers=headers)
            self.refused(413, "too_large", answer, "20000")

    def test_a_body_of_unknown_length_is_too_large_all_the_same(self) -> None:
        chunks = (b" " * 10_000 for _ in range(100))
        self.refused(413, "too_large", self.api.post("/v1/executions", content=chunks), "20000")

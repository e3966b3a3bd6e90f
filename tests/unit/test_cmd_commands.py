"""Every command of users against a server that records what arrives."""

import hashlib
import io
import json
import pathlib
import uuid
import zipfile

import fixtures
import testtools

from tests import cli_server

fault = cli_server.fault


class CommandCase(testtools.TestCase):
    def setUp(self):
        super().setUp()
        self.server = self.useFixture(cli_server.Server())
        self.cli = self.useFixture(cli_server.CommandLine(self.server.endpoint))
        self.home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def succeed(self, *words, **more):
        result = self.cli(*words, **more)
        self.assertEqual(0, result.code, result.err)
        return result

    def fail(self, code, *words, **more):
        result = self.cli(*words, **more)
        self.assertEqual(code, result.code, result.err)
        self.assertNotIn("Traceback", result.err)
        return result.err

    def write(self, name, text):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    @property
    def last(self):
        return self.server.requests[-1]


class RuntimeTests(CommandCase):
    def test_create_waits_until_the_runtime_is_available(self):
        result = self.succeed("runtime", "create", "python3", "--name", "py", "-f", "json")
        self.assertEqual("available", result.json["status"])
        self.assertEqual(
            {"image": "python3", "name": "py", "is_public": True, "trusted": True},
            self.server.requests[0].json,
        )

    def test_create_does_not_wait_when_told_so(self):
        result = self.succeed(
            "runtime", "create", "python3", "--private", "--untrusted", "--no-wait", "-f", "json"
        )
        self.assertEqual("creating", result.json["status"])
        self.assertEqual([False, False], [self.last.json[key] for key in ("is_public", "trusted")])

    def test_a_runtime_that_ends_as_error_is_a_platform_failure_with_its_reason(self):
        broken = {
            "id": "r",
            "status": "error",
            "reason": {"code": "image_unknown", "message": "No driver knows nodejs."},
        }
        self.server.prepare("POST", "/v1/runtimes", cli_server.Answer(201, broken))
        err = self.fail(3, "runtime", "create", "nodejs")
        self.assertIn("No driver knows nodejs. (image_unknown)", err)

    def test_list_shows_a_table(self):
        runtime_id = self.server.add_runtime("python3")
        self.assertIn(f"| {runtime_id} | python3 |", self.succeed("runtime", "list").out)

    def test_list_for_scripts(self):
        self.server.add_runtime("python3")
        self.assertEqual("available\n", self.succeed("runtime", "list", "-f", "value", "-c", "status").out)
        self.assertIn("image: python3", self.succeed("runtime", "list", "-f", "yaml").out)
        self.assertIn('"python3"', self.succeed("runtime", "list", "-f", "csv").out)

    def test_show_finds_it_by_name_and_by_id(self):
        runtime_id = self.server.add_runtime("python3")
        for reference in ("python3", runtime_id):
            shown = self.succeed("runtime", "show", reference, "-f", "json").json
            self.assertEqual(runtime_id, shown["id"])

    def test_one_without_a_name_is_found_by_its_image(self):
        runtime_id = self.server.add_runtime("funcplat/nodejs:22")
        self.server.runtimes[runtime_id]["name"] = None
        named = self.server.add_runtime("other")
        self.server.runtimes[named]["image"] = "python3"
        shown = self.succeed("runtime", "show", "funcplat/nodejs:22", "-f", "json").json
        self.assertEqual(runtime_id, shown["id"])
        self.server.add_runtime("python3")
        self.assertNotEqual(named, self.succeed("runtime", "show", "python3", "-f", "json").json["id"])

    def test_update_sends_what_is_given(self):
        runtime_id = self.server.add_runtime("python3")
        self.succeed("runtime", "update", "python3", "--description", "the new one")
        self.assertEqual(
            ("PUT", f"/v1/runtimes/{runtime_id}", {"description": "the new one"}),
            (self.last.method, self.last.path, self.last.json),
        )

    def test_update_of_nothing_is_a_usage_error(self):
        self.assertIn("nothing to change", self.fail(2, "runtime", "update", "python3"))

    def test_pool_shows_counts(self):
        self.server.add_runtime("python3")
        shown = self.succeed("runtime", "pool", "python3", "-f", "json").json
        self.assertEqual((3, 2), (shown["total"], shown["available"]))

    def test_delete_goes_on_after_a_failure_and_its_exit_code_is_the_first_one(self):
        runtime_id = self.server.add_runtime("b")
        path = f"/v1/runtimes/{self.server.add_runtime('a')}"
        self.server.prepare("DELETE", path, fault(403, "in_use", "Runtime a is still in use."))
        err = self.fail(7, "runtime", "delete", "a", "missing", "b")
        self.assertIn("error: a: Runtime a is still in use. (in_use, req-1)", err)
        self.assertIn("no runtime is named 'missing'", err)
        self.assertNotIn(runtime_id, self.server.runtimes)


class FunctionCreateTests(CommandCase):
    def create(self, *words):
        self.succeed("function", "create", *words)
        return self.last

    def test_a_file_is_packaged_and_its_entry_is_its_main(self):
        runtime_id = self.server.add_runtime()
        source = self.write("hello.py", "def main():\n    return 1\n")
        form = self.create("hi", "--runtime", "python3", "--file", source).form
        self.assertEqual(b"hi", form["name"])
        self.assertEqual(runtime_id.encode(), form["runtime_id"])
        self.assertEqual(b"hello.main", form["entry"])
        md5sum = hashlib.md5(form["package"]).hexdigest()
        self.assertEqual({"source": "package", "md5sum": md5sum}, json.loads(form["code"]))
        archive = zipfile.ZipFile(io.BytesIO(form["package"]))
        self.assertEqual(["hello.py"], archive.namelist())

    def test_a_directory_is_packaged_and_what_is_left_out_is_said(self):
        self.server.add_runtime()
        self.write("f/main.py", "def main():\n    return 1\n")
        self.write("f/__pycache__/main.pyc", "")
        result = self.succeed("function", "create", "hi", "--directory", str(self.home / "f"))
        self.assertEqual(["main.py"], zipfile.ZipFile(io.BytesIO(self.last.form["package"])).namelist())
        self.assertNotIn("entry", self.last.form)
        self.assertIn("left out: __pycache__/", result.err)

    def test_a_zip_is_sent_as_it_is(self):
        self.server.add_runtime()
        path = self.home / "made.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("main.py", "main = dict\n")
        self.assertEqual(path.read_bytes(), self.create("hi", "--package", str(path)).form["package"])

    def test_what_is_no_zip_is_refused_here(self):
        path = self.write("made.zip", "no zip")
        self.assertIn("is not a ZIP file", self.fail(2, "function", "create", "hi", "--package", path))

    def test_limits_and_environment_are_sent(self):
        self.server.add_runtime()
        source = self.write("hello.py", "")
        words = ["--cpu", "200", "--memory", "64M", "--timeout", "9", "--entry", "hello.go"]
        form = self.create("hi", "--file", source, *words, "--env", "A=1", "--env", "B=x=y").text_fields
        self.assertEqual(
            ("200", str(64 * 1024**2), "9", "hello.go"),
            tuple(form[name] for name in ("cpu", "memory_size", "timeout", "entry")),
        )
        self.assertEqual({"A": "1", "B": "x=y"}, json.loads(form["environment"]))

    def test_the_runtime_may_be_left_out_where_one_is_available(self):
        self.server.add_runtime("broken", "error")
        runtime_id = self.server.add_runtime("python3")
        form = self.create("hi", "--file", self.write("hello.py", "")).form
        self.assertEqual(runtime_id.encode(), form["runtime_id"])

    def test_several_runtimes_must_be_chosen_from(self):
        ids = [self.server.add_runtime(name) for name in ("python3", "nodejs")]
        err = self.fail(2, "function", "create", "hi", "--file", self.write("hello.py", ""))
        for runtime_id in ids:
            self.assertIn(runtime_id, err)

    def test_no_runtime_names_the_command_that_makes_one(self):
        err = self.fail(2, "function", "create", "hi", "--file", self.write("hello.py", ""))
        self.assertIn("funcplat runtime create", err)

    def test_no_code_is_a_usage_error(self):
        self.assertIn("--file, --directory, --package or --image", self.fail(2, "function", "create", "hi"))

    def test_a_refusal_of_the_server_is_shown_with_code_and_request(self):
        self.server.add_runtime()
        answer = fault(400, "limit_out_of_range", "cpu must be from 100 to 300.")
        self.server.prepare("POST", "/v1/functions", answer)
        err = self.fail(2, "function", "create", "hi", "--file", self.write("hello.py", ""))
        self.assertEqual("error: cpu must be from 100 to 300. (limit_out_of_range, req-1)\n", err)


class FunctionTests(CommandCase):
    def test_update_of_fields_is_a_form(self):
        key = self.server.add_function("hi")
        self.succeed("function", "update", "hi", "--memory", "64MiB", "--name", "ho", "--no-env")
        self.assertEqual(("PUT", f"/v1/functions/{key}"), (self.last.method, self.last.path))
        self.assertEqual(
            {"name": "ho", "memory_size": "67108864", "environment": "{}"}, self.last.text_fields
        )

    def test_update_of_code_sends_no_checksum_so_that_unchanged_code_is_accepted(self):
        self.server.add_function("hi")
        self.succeed("function", "update", "hi", "--file", self.write("hello.py", "main = dict"))
        self.assertEqual({"source": "package"}, json.loads(self.last.form["code"]))
        self.assertNotIn("entry", self.last.form)

    def test_create_of_an_image_is_a_form_without_a_runtime(self):
        self.server.add_runtime("python4")
        self.succeed("function", "create", "hi", "--image", "team/hi:1", "--timeout", "9")
        self.assertEqual(("POST", "/v1/functions"), (self.last.method, self.last.path))
        self.assertEqual({"code", "name", "timeout"}, set(self.last.text_fields))
        self.assertEqual({"source": "image", "image": "team/hi:1"}, json.loads(self.last.form["code"]))

    def test_an_image_runs_where_its_runtime_does(self):
        runtime_id = self.server.add_runtime("python4")
        self.succeed("function", "create", "hi", "--image", "team/hi:1", "--runtime", "python4")
        self.assertEqual(runtime_id, self.last.text_fields["runtime_id"])

    def test_update_of_an_image_names_it(self):
        self.server.add_function("hi")
        self.succeed("function", "update", "hi", "--image", "team/hi:2")
        self.assertEqual({"source": "image", "image": "team/hi:2"}, json.loads(self.last.form["code"]))

    def test_a_function_is_an_image_or_a_file_and_not_both(self):
        path = self.write("hello.py", "main = dict")
        self.fail(2, "function", "create", "hi", "--image", "x", "--file", path)

    def test_update_of_the_runtime_sends_its_id(self):
        self.server.add_function("hi")
        runtime_id = self.server.add_runtime("python4")
        self.succeed("function", "update", "hi", "--runtime", "python4")
        self.assertEqual({"runtime_id": runtime_id}, self.last.text_fields)

    def test_update_of_nothing_is_a_usage_error(self):
        self.assertIn("nothing to change", self.fail(2, "function", "update", "hi"))

    def test_list_sends_its_options(self):
        self.succeed("function", "list", "--limit", "5", "--marker", "m", "--all-projects")
        self.assertEqual({"limit": "5", "marker": "m", "all_projects": "true"}, self.last.query)

    def test_show_gives_sizes_for_people_and_bytes_for_scripts(self):
        key = self.server.add_function("hi")
        self.assertIn("32 MiB", self.succeed("function", "show", "hi").out)
        shown = self.succeed("function", "show", key, "-f", "json").json
        self.assertEqual((33554432, "package"), (shown["memory_size"], shown["code"]["source"]))

    def test_a_name_that_several_have_is_refused_with_their_ids(self):
        keys = [self.server.add_function("hi") for _ in range(2)]
        err = self.fail(2, "function", "show", "hi")
        for key in keys:
            self.assertIn(key, err)

    def test_an_unknown_name_is_not_found(self):
        self.assertIn("no function is named 'nope'", self.fail(4, "function", "show", "nope"))

    def test_an_unknown_id_is_not_found(self):
        self.assertIn("not_found", self.fail(4, "function", "show", str(uuid.uuid4())))

    def test_delete_takes_names_and_ids(self):
        other = self.server.add_function("ho")
        self.server.add_function("hi")
        self.succeed("function", "delete", "hi", other)
        self.assertEqual({}, self.server.functions)

    def test_download_writes_a_file_named_like_the_function(self):
        key = self.server.add_function("hi")
        target = self.home / "out.zip"
        self.succeed("function", "download", "hi", "-o", str(target))
        self.assertEqual(self.server.packages[key], target.read_bytes())
        self.assertEqual({"download": "true"}, self.last.query)
        self.assertEqual([target], list(self.home.iterdir()))

    def test_download_replaces_a_file_only_when_told(self):
        self.server.add_function("hi")
        target = self.write("out.zip", "mine")
        self.assertIn("--force", self.fail(2, "function", "download", "hi", "-o", target))
        self.succeed("function", "download", "hi", "-o", target, "--force")

    def test_a_failed_download_leaves_nothing(self):
        key = self.server.add_function("hi")
        self.server.prepare("GET", f"/v1/functions/{key}", fault(404, "not_found", "gone"))
        self.fail(4, "function", "download", key, "-o", str(self.home / "out.zip"))
        self.assertEqual([], list(self.home.iterdir()))

    def test_detach_posts_without_a_body(self):
        key = self.server.add_function("hi")
        self.succeed("function", "detach", "hi")
        self.assertEqual((f"/v1/functions/{key}/detach", b""), (self.last.path, self.last.body))
        self.assertEqual("0", self.last.headers["content-length"])

    def test_scaling_posts_the_count(self):
        key = self.server.add_function("hi")
        self.succeed("function", "scale-up", "hi", "--count", "3")
        self.assertEqual((f"/v1/functions/{key}/scale_up", {"count": 3}), (self.last.path, self.last.json))
        self.succeed("function", "scale-down", "hi")
        self.assertEqual((f"/v1/functions/{key}/scale_down", {"count": 1}), (self.last.path, self.last.json))

    def test_scaling_by_nothing_is_a_usage_error(self):
        self.assertIn("from 1 on", self.fail(2, "function", "scale-up", "hi", "--count", "0"))

    def test_workers_of_a_function(self):
        key = self.server.add_function("hi")
        [worker] = self.succeed("worker", "list", "hi", "-f", "json").json
        self.assertEqual(("w-1", key), (worker["worker_name"], worker["function_id"]))


class InvokeTests(CommandCase):
    SOURCE = (
        "def main(name='you', context=None, **more):\n"
        "    print('greeting')\n"
        "    return {'hello': name, **more}\n"
    )

    def setUp(self):
        super().setUp()
        self.key = self.server.add_function("hi", self.SOURCE)

    @property
    def created(self):
        [request] = [request for request in self.server.requests if request.method == "POST"]
        return request.json

    def test_the_result_is_pretty_json_on_stdout_and_the_log_on_stderr(self):
        result = self.succeed("invoke", "hi", "name=Ann")
        self.assertEqual('{\n  "hello": "Ann"\n}\n', result.out)
        self.assertEqual("greeting\n", result.err)
        self.assertEqual({"function_id": self.key, "sync": True, "input": '{"name": "Ann"}'}, self.created)

    def test_values_are_json_where_they_are_valid_json_and_strings_otherwise(self):
        words = ["a=1", "b=true", "c=0123", 'd={"x": [1]}', 'e="7"', "f=", "g=NaN", "h=x=y"]
        self.succeed("invoke", "hi", *words)
        self.assertEqual(
            {"a": 1, "b": True, "c": "0123", "d": {"x": [1]}, "e": "7", "f": "", "g": "NaN", "h": "x=y"},
            json.loads(self.created["input"]),
        )

    def test_input_comes_from_an_option(self):
        self.succeed("invoke", "hi", "--input", '{"name": "Bo"}')
        self.assertEqual('{"name": "Bo"}', self.created["input"])

    def test_input_comes_from_a_file_and_arguments_are_put_over_it(self):
        path = self.write("input.json", '{"name": "Bo", "x": 1}')
        self.succeed("invoke", "hi", "name=Cy", "--input", f"@{path}")
        self.assertEqual({"name": "Cy", "x": 1}, json.loads(self.created["input"]))

    def test_input_comes_from_standard_input(self):
        self.succeed("invoke", "hi", "--input", "-", stdin='{"name": "Di"}')
        self.assertEqual('{"name": "Di"}', self.created["input"])

    def test_input_that_is_no_object_cannot_take_arguments(self):
        self.assertIn("JSON object", self.fail(2, "invoke", "hi", "a=1", "--input", "[1]"))
        self.assertIn("JSON object", self.fail(2, "invoke", "hi", "a=1", "--input", "text"))

    def test_an_argument_without_a_value_is_a_usage_error(self):
        self.assertIn("KEY=VALUE", self.fail(2, "invoke", "hi", "name"))

    def test_a_missing_input_file_is_a_usage_error(self):
        self.assertIn("cannot read", self.fail(2, "invoke", "hi", "--input", "@/nowhere/at/all"))

    def test_raw_strings_have_no_quotes(self):
        self.server.add_function("text", "def main():\n    return 'ü'\n")
        self.assertEqual('"ü"\n', self.succeed("invoke", "text").out)
        self.assertEqual("ü\n", self.succeed("invoke", "text", "--raw").out)

    def test_the_log_can_be_left_out(self):
        self.assertEqual("", self.succeed("invoke", "hi", "--no-log").err)

    def test_a_failing_function_exits_with_1_and_prints_no_result(self):
        self.server.add_function("bad", "def main():\n    raise ValueError('too bad')\n")
        result = self.cli("invoke", "bad")
        self.assertEqual((1, ""), (result.code, result.out))
        self.assertIn("ValueError: too bad\n", result.err)  # the log
        self.assertIn(
            "error: the function failed: too bad: It raised. (function_raised, execution ", result.err
        )

    def test_an_execution_that_could_not_run_exits_with_3(self):
        execution = {"id": "e", "status": "error", "result": '{"output": "Function execution failed."}'}
        self.server.prepare("POST", "/v1/executions", cli_server.Answer(201, execution))
        err = self.fail(3, "invoke", "hi", "--no-log")
        self.assertIn("the platform could not run it: Function execution failed. (execution e)", err)

    def test_async_prints_the_id_and_does_not_wait(self):
        result = self.succeed("invoke", "hi", "--async")
        self.assertIn(result.out.strip(), self.server.executions)
        self.assertFalse(self.created["sync"])

    def test_wait_follows_the_log_and_prints_the_result(self):
        result = self.succeed("invoke", "hi", "--wait", "--quiet", "name=Ed")
        self.assertEqual(('{\n  "hello": "Ed"\n}\n', "greeting\n"), (result.out, result.err))
        self.assertFalse(self.created["sync"])

    def test_a_remark_on_a_success_is_passed_on(self):
        execution = {
            "id": "e",
            "status": "success",
            "result": '{"output": null}',
            "reason": {"code": "log_truncated", "message": "Only 1 MiB is kept."},
        }
        self.server.prepare("POST", "/v1/executions", cli_server.Answer(201, execution))
        result = self.succeed("invoke", "hi", "--no-log")
        self.assertEqual(("null\n", "note: Only 1 MiB is kept. (log_truncated)\n"), (result.out, result.err))


class ExecutionTests(CommandCase):
    def setUp(self):
        super().setUp()
        self.key = self.server.add_function("hi", "def main(n=0):\n    print('line')\n    return n\n")

    def run_once(self):
        return self.succeed("invoke", "hi", "--async", "n=4").out.strip()

    def test_create_shows_the_execution(self):
        shown = self.succeed("execution", "create", "hi", "n=2", "--description", "mine", "-f", "json").json
        self.assertEqual(("success", 2), (shown["status"], shown["result"]["output"]))
        self.assertEqual("mine", self.last.json["description"])

    def test_list_sends_its_filters(self):
        self.succeed("execution", "list", "--function", "hi", "--status", "success", "--project", "p")
        self.assertEqual({"function_id": self.key, "status": "success", "project_id": "p"}, self.last.query)

    def test_show_gives_input_and_result_as_values(self):
        shown = self.succeed("execution", "show", self.run_once(), "-f", "json").json
        self.assertEqual(({"n": 4}, 4), (shown["input"], shown["result"]["output"]))

    def test_delete(self):
        execution_id = self.run_once()
        self.succeed("execution", "delete", execution_id)
        self.assertEqual({}, self.server.executions)
        self.fail(4, "execution", "delete", execution_id)

    def test_log(self):
        self.assertEqual("line\n", self.succeed("execution", "log", self.run_once()).out)

    def test_following_asks_on_from_where_it_was_until_the_log_is_complete(self):
        def part(content, offset, complete):
            return cli_server.Answer(200, content, {"X-Log-Offset": str(offset), "X-Log-Complete": complete})

        parts = [part(b"\xc3", 1, "false"), part(b"\xbc!\n", 4, "false"), part(b"end\n", 8, "true")]
        self.server.prepare("GET", "/v1/executions/e/log", *parts)
        self.assertEqual("ü!\nend\n", self.succeed("execution", "log", "e", "-f").out)
        self.assertEqual(["0", "1", "4"], [request.query["offset"] for request in self.server.requests])

    def test_following_on_a_server_that_cannot_ends_with_what_there_is(self):
        self.server.prepare("GET", "/v1/executions/e/log", cli_server.Answer(200, b"all of it\n"))
        self.assertEqual("all of it\n", self.succeed("execution", "log", "e", "-f").out)

    def test_a_retry_is_sent_as_it_is_asked_for(self):
        words = ["execution", "create", "hi", "--async", "--max-attempts", "3", "--retry-delay", "0.5"]
        self.server.prepare("POST", "/v1/executions", cli_server.Answer(201, {"id": "e"}))
        self.succeed(*words)
        self.assertEqual({"max_attempts": 3, "delay": 0.5}, self.last.json["retry"])

    def test_cancelling_and_queueing_again_go_on_after_a_failure(self):
        for verb in ("cancel", "redrive"):
            self.server.prepare("POST", f"/v1/executions/a/{verb}", cli_server.fault(409, "conflict", "no"))
            self.server.prepare("POST", f"/v1/executions/b/{verb}", cli_server.Answer(200, {"id": "b"}))
            self.fail(7, "execution", verb, "a", "b")
            self.assertEqual(f"/v1/executions/b/{verb}", self.last.path)

    def test_dead_letters_are_listed(self):
        letter = {"id": "e", "status": "error", "reason": {"code": "expired", "message": "old"}}
        answer = cli_server.Answer(200, {"dead_letters": [letter]})
        self.server.prepare("GET", "/v1/dead_letters", answer)
        shown = self.succeed("dead-letter", "list", "--function", "hi", "-f", "json").json
        self.assertEqual(("e", "expired"), (shown[0]["id"], shown[0]["reason"]["code"]))
        self.assertEqual({"function_id": self.key}, self.last.query)

    def test_many_dead_letters_are_queued_again_or_deleted(self):
        for verb, field in (("redrive", "redriven"), ("purge", "purged")):
            answer = cli_server.Answer(200, {field: 3})
            self.server.prepare("POST", f"/v1/dead_letters/{verb}", answer, answer)
            self.assertEqual("3\n", self.succeed("dead-letter", verb, "--all").out)
            self.assertEqual({}, self.last.json)
            self.succeed("dead-letter", verb, "--function", "hi", "--reason", "expired")
            self.assertEqual({"function_id": self.key, "reason": "expired"}, self.last.json)
            self.fail(2, "dead-letter", verb)


class StatusTests(CommandCase):
    def test_a_ready_server(self):
        shown = self.succeed("status", "-f", "json").json
        self.assertEqual("v1.0 (CURRENT)", shown["api_versions"])
        self.assertEqual(("ok", "ok"), (shown["healthy"], shown["ready"]))

    def test_a_server_that_is_not_ready_exits_with_3(self):
        self.server.prepare("GET", "/readyz", fault(503, "overloaded", "The database does not answer."))
        result = self.cli("status")
        self.assertEqual(3, result.code)
        self.assertIn("no: The database does not answer.", result.out)

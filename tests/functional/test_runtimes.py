"""Runtimes over HTTP (API.md section 3)."""

from __future__ import annotations

import uuid

from tests.functional.platform import ADMIN, IMAGE, ApiTest, package, until

FIELDS = {
    "id",
    "name",
    "image",
    "description",
    "is_public",
    "trusted",
    "status",
    "project_id",
    "created_at",
    "updated_at",
}


class RuntimeTests(ApiTest):
    def test_a_runtime_is_creating_then_available(self) -> None:
        made = self.ok(
            201, self.admin.post("/v1/runtimes", {"image": IMAGE, "name": "n", "description": "d"})
        )
        self.assertEqual(set(), FIELDS - made.keys())
        self.assertEqual(
            ("creating", "n", "d", IMAGE),
            tuple(made[key] for key in ("status", "name", "description", "image")),
        )
        self.assertEqual(
            (True, True, "admins", None),
            (made["is_public"], made["trusted"], made["project_id"], made["updated_at"]),
        )
        self.assertRegex(made["created_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(made["id"], str(uuid.UUID(made["id"])))
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.admin.get(path).json()["status"] == "available", "it is available")

    def test_null_is_absent(self) -> None:
        body = {"image": IMAGE, "name": None, "description": None, "is_public": None, "trusted": None}
        made = self.ok(201, self.admin.post("/v1/runtimes", body))
        self.assertEqual((None, True, True), (made["name"], made["is_public"], made["trusted"]))

    def test_an_image_that_no_driver_knows_makes_the_runtime_an_error_with_the_reason(self) -> None:
        made = self.ok(201, self.admin.post("/v1/runtimes", {"image": "no/such:image"}))
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.admin.get(path).json()["status"] == "error", "it is an error")
        reason = self.admin.get(path).json()["reason"]
        self.assertEqual("image_unknown", reason["code"])
        self.assertIn("no/such:image", reason["message"])
        fields = {"runtime_id": made["id"]}
        self.refused(400, "invalid_request", self.post_function(package(), **fields), "is not available")
        self.ok(204, self.admin.delete(path))

    def test_bodies_that_cannot_be_used_are_400(self) -> None:
        for body, word in (
            ({}, "image"),
            ({"image": None}, "image"),
            ({"image": ""}, "image"),
            ({"image": 5}, "image"),
            ({"image": IMAGE, "colour": "red"}, "Unknown attribute"),
            ({"image": IMAGE, "status": "available"}, "Cannot set read only field"),
            ({"image": IMAGE, "project_id": "p"}, "Cannot set read only field"),
            ({"image": IMAGE, "is_public": "perhaps"}, "is_public"),
            ({"image": "i" * 256}, "255"),
            ({"image": IMAGE, "name": "n" * 256}, "255"),
            ({"image": IMAGE, "description": "d" * 256}, "255"),
            ({"image": IMAGE, "name": "a\0b"}, "name"),
            ({"image": IMAGE, "orchestrator": "no-such"}, "not enabled"),
            ([], "Invalid"),
            ("text", "Invalid"),
        ):
            self.refused(400, "invalid_request", self.admin.post("/v1/runtimes", body), word)
        for content in (b"", b"{", b"\xff", b'{"image": "\\ud800"}', b"[" * 5000, b'{"name": 1e999}'):
            self.refused(400, "invalid_request", self.admin.post("/v1/runtimes", content=content))

    def test_text_of_255_characters_fits(self) -> None:
        made = self.ok(201, self.admin.post("/v1/runtimes", {"image": IMAGE, "name": "ü" * 255}))
        self.assertEqual("ü" * 255, made["name"])

    def test_name_and_description_change_in_place(self) -> None:
        path = f"/v1/runtimes/{self.runtime(name='before')}"
        changed = self.ok(200, self.admin.put(path, {"name": "after", "description": "text"}))
        self.assertEqual(
            ("after", "text", "available"), tuple(changed[k] for k in ("name", "description", "status"))
        )
        self.assertIsNotNone(changed["updated_at"])
        same = self.ok(
            200, self.admin.put(path, {"name": None, "image": IMAGE, "is_public": False, "trusted": False})
        )
        self.assertEqual(("after", True, True), (same["name"], same["is_public"], same["trusted"]))

    def test_a_new_image_is_an_upgrade_which_a_bad_image_rolls_back(self) -> None:
        path = f"/v1/runtimes/{self.runtime()}"
        changed = self.ok(200, self.admin.put(path, {"image": "my/python:new"}))
        self.assertEqual(("upgrading", "my/python:new"), (changed["status"], changed["image"]))
        until(lambda: self.admin.get(path).json()["status"] == "available", "it is upgraded")
        self.ok(200, self.admin.put(path, {"image": "no-such"}))
        until(lambda: self.admin.get(path).json()["status"] == "available", "it is rolled back")
        shown = self.ok(200, self.admin.get(path))
        self.assertEqual(("my/python:new", "image_unknown"), (shown["image"], shown["reason"]["code"]))

    def test_an_upgrade_waits_for_the_one_before(self) -> None:
        made = self.ok(201, self.admin.post("/v1/runtimes", {"image": "no-such"}))
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.admin.get(path).json()["status"] == "error", "it is an error")
        self.refused(409, "runtime_not_available", self.admin.put(path, {"image": IMAGE}), "is not available")

    def test_an_upgrade_is_possible_with_functions_but_not_with_workers(self) -> None:
        runtime = self.runtime()
        function = self.create(runtime_id=runtime)
        path = f"/v1/runtimes/{runtime}"
        self.ok(200, self.admin.put(path, {"image": "python:2"}))
        until(lambda: self.admin.get(path).json()["status"] == "available", "it is upgraded")
        self.assertEqual("Hello, World!", self.output(self.execute(function)))
        self.refused(403, "in_use", self.admin.put(path, {"image": "python:3"}), "in use")
        self.ok(202, self.admin.post(f"/v1/functions/{function['id']}/detach"))
        workers = f"/v1/functions/{function['id']}/workers"
        until(lambda: not self.admin.get(workers).json()["workers"], "the worker is gone")
        self.ok(200, self.admin.put(path, {"image": "python:3"}))

    def test_a_runtime_in_use_is_not_deleted(self) -> None:
        runtime = self.runtime()
        function = self.create(runtime_id=runtime)
        path = f"/v1/runtimes/{runtime}"
        self.refused(403, "in_use", self.admin.delete(path), "is still in use")
        self.ok(204, self.api.delete(f"/v1/functions/{function['id']}"))
        self.ok(204, self.admin.delete(path))
        until(lambda: self.admin.get(path).status_code == 404, "it is gone")
        self.refused(404, "not_found", self.admin.delete(path), "Runtime not found")

    def test_a_pool_says_how_many_workers_there_may_be(self) -> None:
        runtime = self.shared_runtime()
        pool = self.ok(200, self.admin.get(f"/v1/runtimes/{runtime}/pool"))
        self.assertEqual({"name", "capacity"}, pool.keys())
        self.assertEqual(runtime, pool["name"])
        self.assertGreaterEqual(pool["capacity"]["total"], pool["capacity"]["available"])
        self.refused(
            404, "not_found", self.admin.get(f"/v1/runtimes/{uuid.uuid4()}/pool"), "Runtime not found"
        )

    def test_ids_that_are_none_are_400_and_unknown_ones_404(self) -> None:
        for path in ("/v1/runtimes/abc", "/v1/runtimes/abc/pool", "/v1/runtimes/%00"):
            self.refused(400, "invalid_request", self.admin.get(path), "Expected a uuid")
        self.refused(
            400, "invalid_request", self.admin.put("/v1/runtimes/abc", {"name": "x"}), "Expected a uuid"
        )
        self.refused(400, "invalid_request", self.admin.delete("/v1/runtimes/abc"), "Expected a uuid")
        for method in ("GET", "PUT", "DELETE"):
            answer = self.admin(method, f"/v1/runtimes/{uuid.uuid4()}", json={})
            self.refused(404, "not_found", answer, "Runtime not found")

    def test_ids_may_be_written_as_other_uuids_are(self) -> None:
        runtime = self.shared_runtime()
        for written in (runtime.upper(), runtime.replace("-", "")):
            self.assertEqual(runtime, self.ok(200, self.api.get(f"/v1/runtimes/{written}"))["id"])

    def test_a_private_runtime_is_seen_by_its_project_and_admins_alone(self) -> None:
        private = self.runtime(is_public=False, name="private")
        path = f"/v1/runtimes/{private}"
        self.refused(404, "not_found", self.api.get(path))
        self.assertNotIn(
            private, [each["id"] for each in self.ok(200, self.api.get("/v1/runtimes"))["runtimes"]]
        )
        self.refused(404, "not_found", self.post_function(package(), runtime_id=private))
        self.assertEqual(private, self.ok(200, self.caller(ADMIN).get(path))["id"])
        listed = self.ok(200, self.admin.get("/v1/runtimes"))["runtimes"]
        self.assertIn(private, [each["id"] for each in listed])

    def test_lists_are_ordered_by_creation_and_paged(self) -> None:
        made = [self.runtime(name=f"r{n}") for n in range(3)]
        listed = [each["id"] for each in self.ok(200, self.api.get("/v1/runtimes"))["runtimes"]]
        self.assertEqual(made, [each for each in listed if each in made])
        page = self.ok(200, self.api.get("/v1/runtimes", limit=1, sort_key="name", sort_dir="desc"))
        self.assertEqual(1, len(page["runtimes"]))
        self.assertIn("next", page)
        for query in ({"all_projects": "true"}, {"project_id": "p"}, {"colour": "red"}, {"status": "error"}):
            self.refused(400, "invalid_request", self.api.get("/v1/runtimes", **query), "Unknown argument")

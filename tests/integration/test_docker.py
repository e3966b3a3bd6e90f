"""Functions in containers, over the API of a real server: calls, scaling, two drivers, what goes wrong."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import fixtures

from funcplat import errors
from funcplat.drivers.docker import deadlines, engine, options
from tests import docker_engine, services
from tests.functional.platform import token_of, until
from tests.integration import docker_server
from tests.services import processes

WHERE = """
    import os, time
    calls = 0
    def main(value=None, seconds=0.0):
        global calls
        calls += 1
        print("value is", value, flush=True)
        time.sleep(seconds)
        return {"value": value, "calls": calls, "uid": os.getuid(), "root": sorted(os.listdir("/"))}
"""


class CallsTest(docker_server.DockerServerTest):
    def test_a_function_runs_in_a_container(self) -> None:
        function = self.function(WHERE)
        execution = self.call(function, value=[1, "zwei"])
        output = self.output(execution)
        self.assertEqual([1, "zwei"], output["value"])
        self.assertEqual(64010, output["uid"])
        log = self.api.get(f"/v1/executions/{execution['id']}/log").text
        self.assertIn("value is [1, 'zwei']", log)
        self.assertEqual(2, self.output(self.call(function))["calls"])
        self.assertEqual(1, len(self.server.containers()))

    def test_limits_fail_the_execution_with_their_reason_and_not_the_worker(self) -> None:
        source = """
            import os, time
            def main(size=0, seconds=0, files=0):
                data = bytearray(size)
                data[:] = b"x" * size
                time.sleep(seconds)
                if files:
                    with open("/tmp/big", "wb") as file:
                        for _ in range(files >> 16):
                            file.write(b"x" * (1 << 16))
                return os.getpid() > 0
        """
        function = self.function(source, memory_size=str(64 << 20), timeout="2")
        self.assertTrue(self.output(self.call(function)))
        cases = {
            "memory_exceeded": {"size": 256 << 20},
            "timeout": {"seconds": 60},
            "disk_full": {"files": 48 << 20},
        }
        for reason, values in cases.items():
            execution = self.call(function, **values)
            self.assertEqual(
                ("failed", reason), (execution["status"], execution["reason"]["code"]), execution
            )
        self.assertTrue(self.output(self.call(function)))
        self.assertEqual(1, len(self.server.containers()))

    def test_detached_and_deleted_functions_have_no_containers(self) -> None:
        function = self.function(WHERE)
        self.call(function)
        self.assertEqual(202, self.server.admin.post(f"/v1/functions/{function}/detach").status_code)
        until(lambda: not self.server.containers(), "the container is gone")
        self.call(function)
        self.assertEqual(204, self.api.delete(f"/v1/functions/{function}").status_code)
        until(lambda: not self.server.containers(), "the container is gone")

    def test_a_pool_is_filled_and_shown(self) -> None:
        runtime = self.runtime()
        path = f"/v1/runtimes/{runtime}/pool"
        self._until_capacity(path, total=1, available=1)
        waiting = self.server.containers("p")[0]["Id"]
        self.call(self.function(WHERE, runtime, memory_size=str(32 << 20)))
        self.assertEqual([waiting], [each["Id"] for each in self.server.containers()])
        self._until_capacity(path, total=2, available=1)

    def _until_capacity(self, path: str, **expected: int) -> None:
        until(lambda: self.server.admin.get(path).json()["capacity"] == expected, "the pool has its size")

    def test_a_worker_has_the_limits_of_its_function(self) -> None:
        self.call(self.function(WHERE, cpu="300", memory_size=str(96 << 20)))
        found = self.server.containers()[0]["Id"]
        with docker_engine.client(self.url) as engine:
            until(
                lambda: engine.inspect_container(found)["HostConfig"]["CpuQuota"] == 30_000, "limits are set"
            )
            host = engine.inspect_container(found)["HostConfig"]
        self.assertEqual((96 << 20, 96 << 20, 64), (host["Memory"], host["MemorySwap"], host["PidsLimit"]))

    def test_a_function_moves_between_drivers_without_a_failed_call(self) -> None:
        process, container = self.runtime("process"), self.runtime("docker")
        function = self.function(WHERE, process)
        self.assertNotIn(".dockerenv", self.output(self.call(function))["root"])
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            callers = [pool.submit(self._call_until, stop, function) for _ in range(3)]
            for runtime, inside in ((container, True), (process, False), (container, True)):
                changed = self.api.put(f"/v1/functions/{function}", {"runtime_id": runtime})
                self.assertEqual(200, changed.status_code, changed.text)
                self.assertEqual(inside, ".dockerenv" in self.output(self.call(function))["root"])
                time.sleep(0.3)
            stop.set()
            executions = [execution for caller in callers for execution in caller.result()]
        self.assertGreater(len(executions), 20)
        self.assertEqual([], [each for each in executions if each["status"] != "success"])

    def _call_until(self, stop: threading.Event, function: str) -> list[dict[str, Any]]:
        api = self.server.caller(token_of("p0"))
        found = []
        while not stop.is_set():
            found.append(self.call(function, api, seconds=0.02))
        return found


class FailuresTest(docker_server.DockerServerTest):
    """What happens behind the platform's back."""

    def in_background(self, function: str, **values: Any) -> concurrent.futures.Future[dict[str, Any]]:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(self.call, function, self.server.caller(token_of("p0")), **values)

    def lose(self, act: Any) -> tuple[dict[str, Any], str]:
        """Lose a worker during a call: its execution, and the reason that its row has in the end."""
        function = self.function(WHERE)
        self.call(function)
        (container,) = self.server.containers()
        running = self.in_background(function, seconds=50)
        until(lambda: self._busy(function), "the call runs")
        with docker_engine.client(self.url) as engine:
            act(engine, container["Id"])
        execution = running.result(20)
        self.assertEqual(2, len({container["Id"], self._container_of_next_call(function)}))
        return execution, self._reason(container["Names"][0].partition(".w.")[2])

    def _busy(self, function: str) -> bool:
        executions = self.api.get("/v1/executions?status=running").json()["executions"]
        return any(each["function_id"] == function and each["phase"] == "running" for each in executions)

    def _container_of_next_call(self, function: str) -> str:
        self.output(self.call(function))
        return str(next(each["Id"] for each in self.server.containers() if each["State"] == "running"))

    def _reason(self, worker: str) -> str:
        query = "SELECT state, reason_code, reason_message FROM workers WHERE id = ?"
        until(lambda: self.server.rows(query, worker)[0][0] == "deleted", "the worker is settled")
        _, code, message = self.server.rows(query, worker)[0]
        self.assertEqual("worker_died", code)
        return str(message)

    def test_a_container_that_is_killed_fails_its_calls_and_is_replaced(self) -> None:
        execution, reason = self.lose(lambda engine, name: engine.kill(name))
        self.assertEqual("worker_died", execution["reason"]["code"])
        for told in (reason, execution["reason"]["message"]):
            self.assertIn("killed by a request to the Docker Engine", told)

    def test_a_container_that_is_removed_fails_its_calls_and_is_replaced(self) -> None:
        execution, _ = self.lose(lambda engine, name: engine.remove_container(name, force=True))
        self.assertEqual("worker_died", execution["reason"]["code"])

    def test_workers_are_adopted_after_kill_9_of_the_server(self) -> None:
        function = self.function(WHERE)
        self.assertEqual(1, self.output(self.call(function))["calls"])
        before = [each["Id"] for each in self.server.containers()]
        self.server.kill()
        self.server.start()
        self.assertEqual(2, self.output(self.call(function))["calls"])
        self.assertEqual(before, [each["Id"] for each in self.server.containers()])

    def test_workers_are_adopted_after_an_orderly_stop(self) -> None:
        function = self.function(WHERE)
        self.call(function)
        self.assertEqual(0, self.server.stop())
        self.assertEqual([], self.server.containers("p"))
        self.server.start()
        self.assertEqual(2, self.output(self.call(function))["calls"])

    def test_nothing_is_left_after_many_kills_under_load(self) -> None:
        function = self.function(WHERE)
        for _ in range(3):
            calls = [self.in_background(function, seconds=0.2) for _ in range(4)]
            time.sleep(0.3)
            self.server.kill()
            concurrent.futures.wait(calls)
            self.server.start()
        self.output(self.call(function))
        until(lambda: not self._unknown_containers(), "containers that no row knows are gone")

    def _unknown_containers(self) -> set[str]:
        found = {each["Names"][0].partition(".w.")[2] for each in self.server.containers()}
        known = {row[0] for row in self.server.rows("SELECT id FROM workers WHERE state != 'deleted'")}
        return found - known


class EngineTest(docker_server.DockerServerTest):
    """The Engine goes away and comes back."""

    def engine(self) -> str:
        self.own = self.useFixture(docker_engine.OwnEngine())
        return self.own.url

    def restart(self, number: signal.Signals) -> None:
        runtime = self.runtime()
        function = self.function(WHERE, runtime)
        self.output(self.call(function))
        worker = self.server.containers()[0]["Names"][0].partition(".w.")[2]
        command = self.own.stop(number)
        path = self._new_runtime()
        until(lambda: self.server.admin.get(path).json().get("reason"), "the runtime says what it waits for")
        shown = self.server.admin.get(path).json()
        self.assertEqual(("creating", "driver_unavailable"), (shown["status"], shown["reason"]["code"]))
        self.assertIn("cannot be reached", shown["reason"]["message"])
        self.own.start(command)
        until(lambda: self.server.admin.get(path).json()["status"] == "available", "the runtime is there")
        self.assertEqual(1, until(lambda: self._calls(function), "calls succeed again"))
        query = "SELECT reason_message FROM workers WHERE id = ? AND state = 'deleted'"
        until(lambda: self.server.rows(query, worker), "the lost worker is settled")
        self.assertIn("Engine was restarted", self.server.rows(query, worker)[0][0])
        self.assertEqual(1, len(self.server.containers()))

    def _new_runtime(self) -> str:
        made = self.server.admin.post("/v1/runtimes", {"image": self.image, "orchestrator": "docker"}).json()
        return f"/v1/runtimes/{made['id']}"

    def _calls(self, function: str) -> int | None:
        execution = self.call(function)
        return self.output(execution)["calls"] if execution["status"] == "success" else None

    def test_an_orderly_restart(self) -> None:
        self.restart(signal.SIGTERM)

    def test_a_crash(self) -> None:
        self.restart(signal.SIGKILL)


class RemoteEngineTest(docker_server.DockerServerTest):
    """An Engine that is reached by TCP with TLS, and shares nothing with the platform."""

    def engine(self) -> str:
        self.own = self.useFixture(docker_engine.OwnEngine())
        port = processes.free_port()
        self.certificates = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        docker_engine.make_certificates(self.certificates)
        tls = [f"--tls{name}={self.certificates / file}" for name, file in docker_engine.SERVER_FILES.items()]
        command = self.own.stop(signal.SIGTERM)
        self.own.start([*command, f"--host=tcp://127.0.0.1:{port}", "--tlsverify", *tls])
        self.remote = f"tcp://127.0.0.1:{port}"
        return self.own.url

    def driver_options(self) -> dict[str, Any]:
        files = docker_engine.CLIENT_FILES.items()
        return {"url": self.remote} | {f"tls_{name}": self.certificates / file for name, file in files}

    def test_functions_run_there(self) -> None:
        self.assertEqual(1, self.output(self.call(self.function(WHERE)))["calls"])
        (container,) = self.server.containers()
        self.assertEqual(
            [f"funcplat-{container['Names'][0][10:18]}"], list(container["NetworkSettings"]["Networks"])
        )

    def test_a_stranger_is_not_let_in(self) -> None:
        strange = docker_engine.group(url=self.remote, tls_ca=str(self.certificates / "ca.pem"))
        error = self.assertRaises(errors.DriverUnavailable, self._ask, strange)
        self.assertIn(self.remote, error.message)

    def _ask(self, group: Any) -> None:
        deadline = deadlines.Deadline(10.0)
        engine.Engine(options.settings(group)).call("GET", "/info", deadline)


class ImagesTest(docker_server.DockerServerTest):
    """Images that cannot be had say so, soon and in words that help."""

    def broken(self, image: str, *words: str) -> None:
        began = time.monotonic()
        made = self.server.admin.post("/v1/runtimes", {"image": image, "orchestrator": "docker"}).json()
        path = f"/v1/runtimes/{made['id']}"
        until(lambda: self.server.admin.get(path).json()["status"] == "error", "the runtime is refused")
        self.assertLess(time.monotonic() - began, 15.0)
        reason = self.server.admin.get(path).json()["reason"]
        self.assertEqual("image_unknown", reason["code"])
        for word in (image, *words):
            self.assertIn(word, reason["message"])

    def test_an_image_that_the_registry_does_not_have(self) -> None:
        host = self.useFixture(services.use("registry")).settings["host"]
        self.broken(f"{host}/no/such:1", "there is no such image")

    def test_an_image_of_a_registry_that_nobody_knows(self) -> None:
        self.broken("no-such-image.example.org/python:1", "the registry in its name is not known")

    def test_an_image_that_is_not_given_to_this_platform(self) -> None:
        with _refusing_registry() as host:
            self.broken(f"{host}/private/python:1", "docker login")

    def test_an_image_that_is_no_runtime(self) -> None:
        docker_engine.base_image(self.url)
        self.broken(docker_engine.BASE, "funcplat runtime build")

    def test_a_runtime_is_built_with_one_command(self) -> None:
        docker_engine.base_image(self.url)
        tag = "funcplat-test/built:1"
        command = [sys.executable, "-m", "funcplat.cmd", "runtime", "build", "--base", docker_engine.BASE]
        command += ["--tag", tag, "--config-file", str(self.server.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        with docker_engine.client(self.url) as engine:
            built = engine.inspect_image(tag)
            base = engine.inspect_image(docker_engine.BASE)
        self.assertEqual(built["Id"], done.stdout.strip())
        self.assertLess(built["Size"] - base["Size"], 30 << 20)
        self.assertEqual(("64010:64010", "SIGKILL"), (built["Config"]["User"], built["Config"]["StopSignal"]))
        self.output(self.call(self.function(WHERE, self.runtime(image=tag))))

    def test_a_name_that_is_none(self) -> None:
        self.broken("Not A Name", "no name of an image")

    def test_an_image_is_pulled_and_pinned_by_its_digest(self) -> None:
        host = self.useFixture(services.use("registry")).settings["host"]
        name = f"{host}/{docker_engine.PYTHON.partition(':')[0]}"
        with docker_engine.client(self.url) as engine:
            engine.tag(self.image, name, "1")
            pushed = json.loads(engine.push(name, "1").splitlines()[-1])
            digest = pushed["aux"]["Digest"]
            engine.remove_image(f"{name}:1")
            runtime = self.runtime(image=f"{name}@{digest}")
            self.output(self.call(self.function(WHERE, runtime)))
            self.assertEqual(0, self.server.stop())
            self.assertEqual([], self.server.leftovers())
            engine.remove_image(f"{name}@{digest}")


class _refusing_registry:  # noqa: N801  used as a context manager
    """A registry that wants a log-in which nobody has."""

    def __enter__(self) -> str:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Refusal(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="the test"')
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

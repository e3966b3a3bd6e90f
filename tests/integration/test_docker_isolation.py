"""Hostile functions in real containers: what they cannot reach, take or break."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import testtools

from funcplat.drivers import base
from funcplat.drivers.docker import containers, driver, endings
from funcplat.testing import workerclient
from tests import docker_engine

HOSTILE = pathlib.Path(__file__).with_name("hostile.py")
MIB = 1 << 20
PATIENCE = 30.0
SPOIL = '''

def spoil(directories):
    """Everything that could leave something in directories that are not this function's."""
    results = {}
    for directory in directories:
        at = lambda name: os.path.join(directory, name)
        entries = os.listdir(directory)
        results[directory] = {
            "create": outcome(write, at("x")),
            "mkdir": outcome(os.mkdir, at("d")),
            "symlink": outcome(os.symlink, "x" * 4000, at("l")),
            "mknod": outcome(os.mknod, at("n"), 0o600 | stat.S_IFIFO),
            "chmod": outcome(os.chmod, directory, 0o777),
            "chown": outcome(os.chown, directory, os.getuid(), os.getgid()),
            "attribute": outcome(os.setxattr, directory, "user.x", b"x" * 3000),
            "unlink": [outcome(os.unlink, at(name)) for name in entries],
            "rename": [outcome(os.rename, at(name), at(name + "x")) for name in entries],
            "append": [outcome(write, at(name)) for name in entries],
            "link": [outcome(os.link, at(name), at(name + "l")) for name in entries],
            "attribute of": [outcome(os.setxattr, at(name), "user.x", b"x" * 3000) for name in entries],
        }
    return results


def say(size):
    """Write to what was the output of the first process."""
    return {path: outcome(write, path) for path in ("/proc/1/fd/1", "/proc/1/fd/2", "/dev/console")}


def end_supervisor():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV):
        for _ in range(3):
            os.kill(1, number)
            time.sleep(0.01)
'''


class HostileTest(testtools.TestCase):
    memory = 64 * MIB
    pids = 32

    def setUp(self) -> None:
        super().setUp()
        self.url = docker_engine.url()
        self.image = self.find_image()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="iso-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o755)
        self.code = self.directory / "code"
        self.code.mkdir()
        self.write_code()
        self.owner = str(uuid.uuid4())
        self.driver = self.make_driver()

    def find_image(self) -> str:
        return docker_engine.python_image(self.url)

    def write_code(self) -> None:
        (self.code / "main.py").write_text(HOSTILE.read_text() + SPOIL)

    def make_driver(self, **options: Any) -> driver.DockerDriver:
        context = base.Context(
            self.owner, self.directory / "s", exposed=True, clock=lambda: datetime.datetime.now(datetime.UTC)
        )
        options = {"url": self.url, "pool_size": 0, **options}
        made = driver.DockerDriver(docker_engine.group(**options), context)
        self.addCleanup(self._close, made)
        made.check()
        return made

    def _close(self, made: driver.DockerDriver) -> None:
        for state in made.list_workers(PATIENCE):
            made.stop_worker(state.handle, 0.0, PATIENCE)
        made.close()
        self.assertEqual([], docker_engine.census(self.url, self.owner))
        self.assertEqual([], list((self.directory / "s").glob("docker/*/*")))

    def start(self, made: driver.DockerDriver | None = None, **changes: Any) -> base.Handle:
        values: dict[str, Any] = {
            "worker_id": str(uuid.uuid4()),
            "owner": self.owner,
            "image": self.image,
            "cpu": 2000,
            "memory": self.memory,
            "pids": self.pids,
            "disk": 16 * MIB,
            "concurrency": 3,
            "code_path": self.code,
        }
        return (made or self.driver).start_worker(base.WorkerSpec(**(values | changes)), PATIENCE)

    @contextlib.contextmanager
    def loaded(self, handle: base.Handle) -> Iterator[workerclient.WorkerClient]:
        with workerclient.WorkerClient(handle.address, PATIENCE) as client:
            self.assertEqual(200, client.load(path=handle.data["code"]).status)
            yield client

    @contextlib.contextmanager
    def attacked(self, **changes: Any) -> Iterator[workerclient.WorkerClient]:
        """A worker with hostile functions, which must live on."""
        with self.loaded(self.start(**changes)) as client:
            yield client
            self.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)

    def attack(self, action: str, timeout: float = 20.0, **arguments: Any) -> Any:
        """What a hostile function returns, in a worker of its own that survives it."""
        with self.attacked() as client:
            execution = client.invoke({"action": action, **arguments}, timeout)
        self.assertEqual("success", execution.status, execution)
        return execution.output


class ReachTest(HostileTest):
    def test_nothing_outside_can_be_reached(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(f"\0{self.owner}")
            abstract.listen()
            results = self.attack("network", port=server.getsockname()[1], abstract=self.owner)
        self.assertIn(results.pop("outside6"), ("ENETUNREACH", "EADDRNOTAVAIL"))
        unreachable = {"metadata": "ENETUNREACH", "outside": "ENETUNREACH"}
        refused = {"loopback": "ECONNREFUSED", "abstract": "ECONNREFUSED"}
        self.assertEqual({**unreachable, **refused, "interfaces": ["lo"]}, results)

    def test_an_operator_may_give_a_runtime_a_network(self) -> None:
        made = self.make_driver(networks=["*nobody*=none", "*python*=bridge"])
        with self.loaded(self.start(made)) as client:
            results = client.invoke({"action": "network", "port": 9, "abstract": "nobody"}).output
        self.assertIn("eth0", results["interfaces"])

    def test_files_and_sockets_of_the_host_and_of_others_are_not_there(self) -> None:
        neighbour = self.start()
        engine = self.url.removeprefix("unix://")
        paths = [
            str(neighbour.address.socket),
            str(self.code),
            engine,
            "/var/run/docker.sock",
            str(self.directory),
        ]
        for path, results in self.attack("reach", paths=paths).items():
            self.assertEqual(["ENOENT"] * 2, results, path)

    def test_no_secret_of_the_host_can_be_found_by_reading_everything(self) -> None:
        canary = f"canary{uuid.uuid4().hex}"
        (self.directory / "token").write_text(canary)
        os.environ["FUNCPLAT_TEST_SECRET"] = canary
        self.addCleanup(os.environ.pop, "FUNCPLAT_TEST_SECRET", None)
        with self.loaded(self.start()) as neighbour:
            neighbour.invoke({"action": "plant", "name": "neighbour", "text": canary})
            result = self.attack("find", 60.0, reversed_canary=canary[::-1])
        self.assertEqual([], result["found"])
        self.assertGreater(result["seen"], 50)

    def test_the_environment_holds_nothing_of_the_platform(self) -> None:
        self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR"}, set(self.attack("environment")))

    def test_only_processes_of_the_worker_can_be_seen(self) -> None:
        pids = self.attack("pids")
        self.assertIn(1, pids)
        self.assertLess(len(pids), 8)


class PrivilegeTest(HostileTest):
    def test_a_function_is_nobody_and_has_no_capabilities(self) -> None:
        identity = self.attack("identity")
        self.assertEqual([64010] * 6, identity.pop("ids"))
        self.assertEqual("1", identity.pop("NoNewPrivs"))
        self.assertEqual("2", identity.pop("Seccomp"))
        self.assertIn(identity.pop("Groups"), ("", "64010"))
        self.assertEqual({"0" * 16}, set(identity.values()))

    def test_system_calls_that_lead_out_are_denied(self) -> None:
        results = self.attack("denied_calls")
        # A process may trace those of its own user, which are its own function's, and change itself.
        harmless = {"ptrace", "process_vm_readv", "TIOCSTI", "PR_SET_CHILD_SUBREAPER", "PR_SET_DUMPABLE"}
        harmless |= {"io_uring_setup"}
        denied = {name: result for name, result in results.items() if name not in harmless}
        self.assertLessEqual(set(denied.values()), {"EPERM", "ENOSYS"}, denied)

    def test_nobody_becomes_root(self) -> None:
        results = self.attack("become_root")
        self.assertIn(
            results.pop("setuid file"), ([], ["64010", "64010"])
        )  # where there is a shell, not more
        self.assertLessEqual(set(results.values()), {"EPERM"}, results)

    def test_the_supervisor_cannot_be_looked_into(self) -> None:
        results = self.attack("peek_at_supervisor")
        self.assertLessEqual(set(results.values()), {"EACCES", "EPERM"}, results)

    def test_the_supervisor_cannot_be_ended(self) -> None:
        self.attack("end_supervisor")
        self.attack("signal_supervisor")

    def test_killing_everything_kills_the_function_alone(self) -> None:
        with self.attacked() as client:
            self.assertEqual("failed", client.invoke({"action": "kill_all"}).status)


class DiskTest(HostileTest):
    """A function leaves nothing on the disk of the Engine's machine, and cannot fill it."""

    def test_nothing_but_scratch_space_can_be_written(self) -> None:
        results = self.attack("write_everywhere")
        self.assertLessEqual(set(results.values()), {"EROFS", "EACCES", "EPERM", "ENOENT"}, results)

    def test_directories_that_are_shared_with_the_host_cannot_be_changed(self) -> None:
        handle = self.start()
        place = pathlib.Path(handle.data["place"])
        before = sorted(str(path) for path in place.rglob("*"))
        with self.loaded(handle) as client:
            found = client.invoke({"action": "spoil", "directories": ["/run/funcplat", "/code"]}).output
            for directory, results in found.items():
                flat = [
                    each
                    for value in results.values()
                    for each in (value if isinstance(value, list) else [value])
                ]
                self.assertNotIn(None, flat, f"{directory}: {results}")
            self.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)
        self.assertEqual(before, sorted(str(path) for path in place.rglob("*")))

    def test_the_log_of_the_container_cannot_be_written_to(self) -> None:
        results = self.attack("say", size=1)
        self.assertNotIn(None, results.values(), results)

    def test_a_full_disk_says_so(self) -> None:
        for path in ("/tmp/big", "/dev/shm/big"):
            with self.attacked() as client:
                execution = client.invoke({"action": "fill", "path": path, "size": 32 * MIB})
                self.assertEqual(("failed", "disk_full"), (execution.status, execution.reason))

    def test_files_without_content_are_bounded_too(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "create_files", "count": 100_000})
            self.assertEqual(("failed", "disk_full"), (execution.status, execution.reason))


class LimitTest(HostileTest):
    def test_a_fork_bomb_is_contained(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "fork_bomb"}, 2.0)
            self.assertEqual("failed", execution.status)
            self.assertIn(execution.reason, ("timeout", "pids_exceeded"))

    def test_a_memory_bomb_is_contained(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "eat_memory", "size": 512 * MIB})
            self.assertEqual(("failed", "memory_exceeded"), (execution.status, execution.reason))

    def test_processes_that_were_left_behind_are_gone_with_the_worker(self) -> None:
        handle = self.start()
        with self.loaded(handle) as client:
            client.invoke({"action": "daemonize"})
            client.send_invoke({"action": "daemonize"})
            self.driver.stop_worker(handle, 0.0, PATIENCE)


class EndingTest(HostileTest):
    """Why a container ended can be told."""

    def detail(self, *command: str, **act: Any) -> str:
        """Run a container of this installation's as a worker would be, and explain its end."""
        name = containers.Names(self.owner).worker(uuid.uuid4().hex)
        with docker_engine.client(self.url) as engine:
            limits = engine.create_host_config(
                mem_limit=32 * MIB, memswap_limit=32 * MIB, network_mode="none"
            )
            labels = {containers.OWNER: self.owner}
            base_image = docker_engine.base_image(self.url)
            engine.create_container(base_image, list(command), name=name, labels=labels, host_config=limits)
            engine.start(name)
            if act:
                engine.kill(name, **act)
            engine.wait(name)
        (state,) = self.driver.list_workers(PATIENCE)
        self.assertFalse(state.running)
        self.driver.stop_worker(state.handle, 0.0, PATIENCE)
        return state.detail

    def test_one_that_exits(self) -> None:
        self.assertEqual("it exited with code 1", self.detail("false"))

    def test_one_that_is_out_of_memory(self) -> None:
        eat = "x = bytearray(200 << 20); x[:] = b'x' * len(x)"
        self.assertIn("out of memory", self.detail("python3", "-I", "-S", "-c", eat))

    def test_one_that_is_killed(self) -> None:
        self.assertIn("killed by a request", self.detail("sleep", "600", signal="SIGKILL"))

    def test_what_the_engine_forgot_is_not_made_up(self) -> None:
        state = {"ExitCode": 137, "OOMKilled": False, "Error": ""}
        self.assertIn("restarted", endings.sentence(state, [], complete=True))
        self.assertIn("SIGKILL", endings.sentence(state, [], complete=False))

"""Hostile functions in real workers of the process driver."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import testtools
from oslo_config import cfg

from funcplat import errors
from funcplat.drivers import base
from funcplat.drivers.process import driver, run_dir
from funcplat.testing import workerclient

HOSTILE = pathlib.Path(__file__).with_name("hostile.py")
HOSTILE_NODEJS = HOSTILE.with_suffix(".js")
MIB = 1 << 20
PATIENCE = 30.0
ROOT = os.geteuid() == 0


def make_driver(
    state_dir: pathlib.Path, owner: str, exposed: bool = False, **options: Any
) -> driver.ProcessDriver:
    conf = cfg.ConfigOpts()
    conf([], project="funcplat", default_config_files=[], default_config_dirs=[])
    conf.register_opts(list(driver.ProcessDriver.opts), group="orchestrator_process")
    for name, value in options.items():
        conf.set_override(name, value, group="orchestrator_process")
    context = base.Context(owner, state_dir, exposed, lambda: datetime.datetime.now(datetime.UTC))
    return driver.ProcessDriver(conf.orchestrator_process, context)


def write_package(directory: pathlib.Path) -> pathlib.Path:
    """The hostile function as ``main.main``, for Python and for Node.js."""
    directory.mkdir(parents=True)
    shutil.copyfile(HOSTILE, directory / "main.py")
    shutil.copyfile(HOSTILE_NODEJS, directory / "main.js")
    return directory


def make_spec(owner: str, code: pathlib.Path, **changes: Any) -> base.WorkerSpec:
    values: dict[str, Any] = {
        "worker_id": str(uuid.uuid4()),
        "owner": owner,
        "image": "funcplat/python3",
        "cpu": 2000,
        "memory": 64 * MIB,
        "pids": 32,
        "disk": 16 * MIB,
        "concurrency": 3,
        "code_path": code,
    }
    return base.WorkerSpec(**(values | changes))


@contextlib.contextmanager
def loaded(handle: base.Handle) -> Iterator[workerclient.WorkerClient]:
    with workerclient.WorkerClient(handle.address, PATIENCE) as client:
        answer = client.load(path=handle.data["code"])
        assert answer.status == 200, answer
        yield client


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def groups(owner: str) -> list[str]:
    """Control groups of an installation's workers and spares."""
    name = f"funcplat-{run_dir.short_name(owner)}"
    found = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-path", f"*/{name}/*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def wait_until(condition: Callable[[], bool], patience: float = 10.0) -> bool:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class IsolationTestCase(testtools.TestCase):
    """A driver, and workers with hostile functions."""

    options: dict[str, Any] = {}  # noqa: RUF012
    worker: dict[str, Any] = {}  # noqa: RUF012
    """What is special about its workers, as for `make_spec`."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="iso-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.owner = str(uuid.uuid4())
        self.state_dir = self.directory / "state"
        self.state_dir.mkdir()
        self.code = write_package(self.state_dir / "code")
        self.driver = make_driver(self.state_dir, self.owner, **self.options)
        self.addCleanup(self.driver.close)
        self.driver.check()

    def start(self, **changes: Any) -> base.Handle:
        return self.driver.start_worker(self.spec(**changes), PATIENCE)

    def spec(self, **changes: Any) -> base.WorkerSpec:
        return make_spec(self.owner, self.code, **(self.worker | changes))

    def attack(self, action: str, timeout: float = 20.0, **arguments: Any) -> Any:
        """What a hostile function returns, in a worker of its own that survives it."""
        with self.attacked() as client:
            execution = client.invoke({"action": action, **arguments}, timeout)
        self.assertEqual("success", execution.status, execution)
        return execution.output

    @contextlib.contextmanager
    def attacked(self, **changes: Any) -> Iterator[workerclient.WorkerClient]:
        handle = self.start(**changes)
        with loaded(handle) as client:
            yield client
            self.assertEqual("on", client.invoke({"action": "echo", "value": "on"}).output)


class SecretsTest(IsolationTestCase):
    """Nothing of the platform or of other functions can be found."""

    def setUp(self) -> None:
        self.canary = f"canary{uuid.uuid4().hex}"
        os.environ["FUNCPLAT_TEST_SECRET"] = self.canary  # before the zygote starts
        self.addCleanup(os.environ.pop, "FUNCPLAT_TEST_SECRET", None)
        super().setUp()

    def test_the_environment_holds_nothing_of_the_platform(self) -> None:
        environment = self.attack("environment")
        self.assertEqual({"PATH", "HOME", "LANG", "TMPDIR"}, set(environment))
        self.assertNotIn(self.canary, json.dumps(environment))

    def test_no_canary_can_be_found_by_reading_everything(self) -> None:
        self._plant()
        result = self.attack("find", 60.0, reversed_canary=self.canary[::-1])
        self.assertEqual([], result["found"])
        self.assertGreater(result["seen"], 100)

    def _plant(self) -> None:
        """Put the canary where the platform keeps its secrets."""
        (self.state_dir / "token").write_text(self.canary)
        (self.state_dir / f"named-{self.canary}").touch()
        with contextlib.closing(sqlite3.connect(self.state_dir / "funcplat.sqlite")) as database:
            database.execute("create table secrets (value text)")
            database.execute("insert into secrets values (?)", (self.canary,))
            database.commit()
        sleeper = subprocess.Popen(
            ["/bin/sh", "-c", "read line", self.canary], stdin=subprocess.PIPE, env={"TOKEN": self.canary}
        )
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        with loaded(self.start()) as client:  # a neighbour
            client.invoke({"action": "plant", "name": "neighbour", "text": self.canary})

    def test_the_search_finds_a_canary_that_can_be_seen(self) -> None:
        with self.attacked() as client:
            client.invoke({"action": "plant", "name": "visible", "text": self.canary})
            result = client.invoke({"action": "find", "reversed_canary": self.canary[::-1]}, 60).output
        self.assertEqual({"/tmp/visible", "/dev/shm/visible"}, set(result["found"]))

    def test_files_and_sockets_of_the_platform_and_of_others_are_not_there(self) -> None:
        neighbour = self.start()
        paths = [
            neighbour.address.socket,
            str(self.code),
            str(self.state_dir),
            "/proc/1/root",
            "/run",
            "/var",
        ]
        results = self.attack("reach", paths=paths)
        for path in paths:
            expected = "EACCES" if path == "/proc/1/root" else "ENOENT"
            self.assertEqual([expected] * 2, results[path], path)

    def test_workers_do_not_share_scratch_space_or_abstract_sockets(self) -> None:
        with loaded(self.start()) as client:
            client.invoke({"action": "plant", "name": "shared", "text": "x"})
            results = self.attack("network", port=9, abstract="shared")
            self.assertEqual("ECONNREFUSED", results["abstract"])
            self.assertEqual("ENOENT", self.attack("reach", paths=["/tmp/shared"])["/tmp/shared"][0])

    def test_only_processes_of_the_worker_can_be_seen(self) -> None:
        pids = self.attack("pids")
        self.assertIn(1, pids)
        self.assertLess(len(pids), 8)
        self.assertLess(max(pids), 20)

    def test_a_function_holds_no_descriptor_of_the_platform(self) -> None:
        found = self.attack("descriptors")
        kinds = set(found.values()) - {f"/proc/{os.getpid()}/fd"}
        # Its output, the channel to its supervisor, and the timer of its calls.
        self.assertEqual({"/dev/null", "pipe", "socket", "anon_inode"}, kinds)
        self.assertLessEqual(len(found), 6)

    def test_state_below_a_shown_directory_is_hidden(self) -> None:
        if not ROOT:
            self.skipTest("needs root, to make a directory below /usr/local")
        state = pathlib.Path(tempfile.mkdtemp(prefix="funcplat-", dir="/usr/local"))
        self.addCleanup(shutil.rmtree, state)
        state.chmod(0o755)
        (state / "token").write_text("secret")
        other = make_driver(state, self.owner, **self.options, run_dir=str(self.directory / "run"))
        self.addCleanup(other.close)
        with loaded(other.start_worker(self.spec(), PATIENCE)) as client:
            results = client.invoke({"action": "reach", "paths": [str(state), f"{state}/token"]}).output
        self.assertEqual("ENOENT", results[f"{state}/token"][0])


class NetworkTest(IsolationTestCase):
    def test_nothing_outside_can_be_reached(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(f"\0{self.owner}")
            abstract.listen()
            results = self.attack("network", port=server.getsockname()[1], abstract=self.owner)
        unreachable = {"metadata": "ENETUNREACH", "outside": "ENETUNREACH", "outside6": "ENETUNREACH"}
        refused = {"loopback": "ECONNREFUSED", "abstract": "ECONNREFUSED"}
        self.assertEqual({**unreachable, **refused, "interfaces": ["lo"]}, results)

    def test_a_function_has_a_loopback_of_its_own(self) -> None:
        self.assertEqual("hello", self.attack("own_loopback"))

    def test_unusual_socket_families_are_denied(self) -> None:
        results = self.attack("families")
        self.assertIsNone(results.pop("unix"))
        self.assertEqual({"EAFNOSUPPORT"}, set(results.values()), results)


class HostNetworkTest(IsolationTestCase):
    options = {"network": "host"}  # noqa: RUF012

    def test_the_operator_can_give_functions_the_hosts_network(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            results = self.attack("network", port=server.getsockname()[1], abstract="nobody")
        self.assertIsNone(results["loopback"])


class PrivilegeTest(IsolationTestCase):
    def test_a_function_is_an_ordinary_user_without_capabilities(self) -> None:
        identity = self.attack("identity")
        self.assertEqual([1000] * 6, identity.pop("ids"))
        self.assertEqual("1", identity.pop("NoNewPrivs"))
        self.assertEqual("2", identity.pop("Seccomp"))
        self.assertIn(identity.pop("Groups"), ("", "65534"))
        self.assertEqual({"0" * 16}, set(identity.values()))

    def test_system_calls_that_lead_out_are_denied(self) -> None:
        results = self.attack("denied_calls")
        self.assertEqual({"EPERM"}, set(results.values()), results)
        self.assertEqual("ENOSYS", self.attack("clone3"))

    def test_nobody_becomes_root(self) -> None:
        results = self.attack("become_root")
        self.assertEqual(["1000", "1000"], results.pop("setuid file"))
        self.assertEqual({"EPERM"}, set(results.values()), results)

    def test_set_user_id_programs_of_the_system_give_nothing(self) -> None:
        self.assertEqual("", self.attack("setuid_programs")["su"])

    def test_the_supervisor_cannot_be_looked_into(self) -> None:
        results = self.attack("peek_at_supervisor")
        self.assertLessEqual(set(results.values()), {"EACCES", "EPERM"}, results)

    def test_signals_do_not_hurt_the_supervisor(self) -> None:
        with self.attacked() as client:
            results = client.invoke({"action": "signal_supervisor"})
            if ROOT:
                self.assertEqual({"EPERM"}, set(results.output.values()))

    def test_killing_everything_kills_the_function_alone(self) -> None:
        with self.attacked() as client:
            self.assertEqual("failed", client.invoke({"action": "kill_all"}).status)

    def test_nothing_but_scratch_space_can_be_written(self) -> None:
        results = self.attack("write_everywhere")
        self.assertLessEqual(set(results.values()), {"EROFS", "EACCES", "EPERM", "ENOENT"}, results)
        self.assertNotIn(None, results.values())

    def test_devices_are_the_harmless_ones(self) -> None:
        harmless = {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}
        self.assertEqual(harmless, set(self.attack("devices")))

    def test_every_mount_is_nosuid_and_only_scratch_space_is_writable(self) -> None:
        for path, options in self.attack("mounts").items():
            self.assertIn("nosuid", options.split(","), path)
            if path not in ("/tmp", "/dev/shm", "/proc", "/function") and not path.startswith("/dev/"):
                self.assertIn("ro", options.split(","), path)

    def test_links_lead_nowhere(self) -> None:
        results = self.attack("links")
        self.assertTrue(results.pop("up and away"))
        self.assertLessEqual(set(results.values()), {"ENOENT", "EACCES", "EXDEV", "EPERM"}, results)


class LimitTest(IsolationTestCase):
    def setUp(self) -> None:
        super().setUp()
        features = {each.name: each for each in self.driver.features()}
        for name in ("memory", "processes"):
            if features[name].isolation is not base.Isolation.ENFORCED:
                self.skipTest(f"needs control groups: {features[name].detail}")

    def test_a_fork_bomb_is_contained(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "fork_bomb"}, 2.0)
            self.assertEqual("failed", execution.status)
            self.assertIn(execution.reason, ("timeout", "pids_exceeded"))

    def test_too_many_processes_are_refused_with_the_reason(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "polite_fork_bomb", "count": 100})
            self.assertEqual(("failed", "pids_exceeded"), (execution.status, execution.reason))

    def test_a_memory_bomb_is_contained(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "eat_memory", "size": 512 * MIB})
            self.assertEqual(("failed", "memory_exceeded"), (execution.status, execution.reason))

    def test_a_full_disk_says_so(self) -> None:
        for path in ("/tmp/big", "/dev/shm/big"):
            with self.attacked() as client:
                execution = client.invoke({"action": "fill", "path": path, "size": 64 * MIB})
                self.assertEqual(("failed", "disk_full"), (execution.status, execution.reason))

    def test_files_without_content_are_bounded_too(self) -> None:
        with self.attacked() as client:
            execution = client.invoke({"action": "create_files", "count": 100_000})
            self.assertEqual(("failed", "disk_full"), (execution.status, execution.reason))


class LeftoverTest(IsolationTestCase):
    """Nothing stays behind, however a worker or its server ends."""

    def traces(self) -> dict[str, Any]:
        mounts = pathlib.Path("/proc/self/mountinfo").read_text()
        return {
            "sockets and files": sorted(str(path) for path in self.state_dir.rglob("*.sock*")),
            "mounts": [line for line in mounts.splitlines() if str(self.directory) in line],
            "groups": groups(self.owner),
        }

    nothing = {"sockets and files": [], "mounts": [], "groups": []}  # noqa: RUF012
    server_options: tuple[str, ...] = ()
    """More arguments of `isolation_server`."""

    def test_nothing_is_left_after_stop_and_close(self) -> None:
        handle = self.start()
        with loaded(handle) as client:
            client.invoke({"action": "daemonize"})
            client.send_invoke({"action": "daemonize"})
            self.driver.stop_worker(handle, 0.5, PATIENCE)
        self.assertFalse(alive(handle.data["pid"]))
        self.driver.close()
        self.assertEqual(self.nothing, self.traces())
        self.assertEqual([], list((self.state_dir / "process").rglob("*")))

    def test_a_worker_that_dies_by_itself_is_cleared_away(self) -> None:
        handle = self.start()
        os.kill(handle.data["pid"], signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not list(self.driver.list_workers(1.0))))
        self.assertTrue(wait_until(lambda: not self.traces()["sockets and files"]))
        self.assertNotIn(handle.data["name"], [path.rpartition("/")[2] for path in groups(self.owner)])

    def test_a_killed_zygote_takes_its_workers_along_and_is_replaced(self) -> None:
        handle = self.start()
        self._daemonize(handle)
        zygote = int(handle.data["name"].partition("-")[0])
        family = descendants(zygote)
        os.kill(zygote, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not any(alive(pid) for pid in family)))
        self.assertTrue(wait_until(lambda: self.traces() == self.nothing), self.traces())
        again = self.start()
        workerclient.wait_until_ready(again.address)

    def _daemonize(self, handle: base.Handle) -> None:
        with workerclient.WorkerClient(handle.address) as client:
            client.load(path=handle.data["code"])
            client.send_invoke({"action": "sleep", "seconds": 3600}, 3600)
            self.assertTrue(wait_until(lambda: self._busy(handle) == 1))

    def _busy(self, handle: base.Handle) -> int:
        with workerclient.WorkerClient(handle.address) as client:
            return int(json.loads(client.ask("GET", "/ready").body)["busy"])

    def test_nothing_is_left_after_kill_9_of_the_server(self) -> None:
        server, handle = self._server()
        family = descendants(server.pid)
        self.assertIn(handle.data["pid"], family)
        server.kill()
        server.wait()
        self.assertTrue(wait_until(lambda: not any(alive(pid) for pid in family)))
        self.assertTrue(wait_until(lambda: self.traces() == self.nothing), self.traces())

    def test_the_next_server_clears_away_what_a_killed_one_and_its_zygote_left(self) -> None:
        server, handle = self._server()
        family = descendants(server.pid)
        os.kill(int(handle.data["name"].partition("-")[0]), signal.SIGSTOP)  # it shall not clear up
        server.kill()
        os.kill(int(handle.data["name"].partition("-")[0]), signal.SIGKILL)
        server.wait()
        self.assertTrue(wait_until(lambda: not any(alive(pid) for pid in family)))
        self.assertNotEqual(self.nothing, self.traces())
        successor = make_driver(self.server_state, self.server_owner)
        self.addCleanup(successor.close)
        self.assertEqual([], list(successor.list_workers(PATIENCE)))
        self.assertEqual([], groups(self.server_owner))
        self.assertEqual([], list(self.server_state.rglob("*.sock")))

    def test_a_second_process_sees_and_stops_a_worker_and_clears_nothing_away(self) -> None:
        _server, handle = self._server()
        second = make_driver(self.server_state, self.server_owner)
        self.addCleanup(second.close)
        states = list(second.list_workers(PATIENCE))
        self.assertEqual([handle], [state.handle for state in states])
        workerclient.wait_until_ready(handle.address)
        second.stop_worker(states[0].handle, 0.5, PATIENCE)
        self.assertEqual([], list(second.list_workers(PATIENCE)))
        self.assertFalse(alive(handle.data["pid"]))

    def test_a_second_process_that_ends_takes_nothing_away_from_an_idle_one(self) -> None:
        idle = make_driver(self.state_dir, self.owner, **self.options, spares=0)
        self.addCleanup(idle.close)
        idle.check()
        self.driver.close()
        command = [sys.executable, "-m", "tests.integration.isolation_server", "--check"]
        subprocess.run([*command, str(self.state_dir), self.owner], check=True)
        handle = idle.start_worker(self.spec(), PATIENCE)
        workerclient.wait_until_ready(handle.address)

    def _server(self) -> tuple[subprocess.Popen[str], base.Handle]:
        """Another process with a driver and one busy worker, of an installation of its own."""
        self.driver.close()
        self.server_owner, self.server_state = self.owner, self.state_dir
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.isolation_server"),
                *(str(self.state_dir), self.owner, *self.server_options),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        handle = base.Handle.from_json(json.loads(server.stdout.readline()))
        self._daemonize(handle)
        return server, handle


class DemandTest(IsolationTestCase):
    """Isolation that an operator demands is there, or the driver refuses to work."""

    def refusal(self, **arguments: Any) -> str:
        other = make_driver(self.state_dir, self.owner, **arguments)
        self.addCleanup(other.close)
        return str(self.assertRaises(errors.DriverError, other.check))

    def test_required_isolation_without_namespaces_is_refused_with_what_would_help(self) -> None:
        if ROOT:
            images = [f"*={shutil.which('python3', path='/usr/bin')}"]
            text = self.refusal(isolation="required", namespaces=False, images=images)
        else:
            text = self.refusal(isolation="required", namespaces=False)
        self.assertIn("mounts, pids and network", text)
        self.assertIn("isolation = preferred", text)

    def test_an_exposed_server_demands_isolation_unasked(self) -> None:
        self.assertIn("beyond loopback", self.refusal(exposed=True, network="host"))

    def test_an_exposed_server_with_isolation_starts(self) -> None:
        other = make_driver(self.state_dir, self.owner, exposed=True)
        self.addCleanup(other.close)
        other.check()

    def test_a_long_state_dir_is_refused_and_a_short_run_dir_helps(self) -> None:
        long = self.directory / ("d" * 100)
        long.mkdir()
        refusal = make_driver(long, self.owner)
        self.assertIn("run_dir", str(self.assertRaises(errors.DriverError, refusal.check)))
        other = make_driver(long, self.owner, run_dir=str(self.directory / "run"))
        self.addCleanup(other.close)
        handle = other.start_worker(make_spec(self.owner, self.code), PATIENCE)
        workerclient.wait_until_ready(handle.address)


class LesserModeTest(testtools.TestCase):
    """What a machine without root or without namespaces still has."""

    options: dict[str, str] = {}  # noqa: RUF012

    def scenario(self, user: int | None, **options: Any) -> dict[str, Any]:
        """Run a function in another process and tell how; as ``user``, if that is not None."""
        directory = pathlib.Path(tempfile.mkdtemp(prefix="iso-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o777)
        interpreter = shutil.which("python3", path="/usr/bin") if ROOT else sys.executable
        if interpreter is None:
            self.skipTest("needs an interpreter that ordinary users can read: /usr/bin/python3")
        paths = [str(HOSTILE.parents[2]), *(path for path in sys.path if path.endswith("site-packages"))]
        result = subprocess.run(
            [interpreter, "-m", "tests.integration.isolation_server", "--once", str(directory), "owner"]
            + [f"{name}={value}" for name, value in (self.options | options).items()],
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            env={"PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(0, result.returncode, result.stderr)
        outcome: dict[str, Any] = json.loads(result.stdout)
        self.assertEqual([], outcome["left"])
        self.assertEqual([], list((directory / "process").rglob("*")))
        return outcome

    def test_an_ordinary_user_has_namespaces(self) -> None:
        outcome = self.scenario(12345 if ROOT else None)
        self.assertEqual("enforced", outcome["features"]["mounts"])
        self.assertEqual("partial", outcome["features"]["user"])
        self.assertEqual([1000] * 6, outcome["identity"]["ids"])
        self.assertEqual("0" * 16, outcome["identity"]["CapEff"])
        self.assertLessEqual(set(outcome["supervisor"].values()), {"EACCES", "EPERM"}, outcome["supervisor"])
        self.assertEqual({"EPERM"}, set(outcome["denied"].values()))

    def test_an_ordinary_user_without_namespaces_still_has_a_filter(self) -> None:
        outcome = self.scenario(12345 if ROOT else None, namespaces="false")
        self.assertEqual("none", outcome["features"]["mounts"])
        self.assertEqual("2", outcome["identity"]["Seccomp"])
        self.assertEqual({"EPERM"}, set(outcome["denied"].values()))

    def test_root_without_namespaces_gives_each_worker_users_of_its_own(self) -> None:
        if not ROOT:
            self.skipTest("needs root")
        outcome = self.scenario(None, namespaces="false")
        self.assertEqual("enforced", outcome["features"]["user"])
        self.assertGreaterEqual(min(outcome["identity"]["ids"]), 200001)
        self.assertEqual("0" * 16, outcome["identity"]["CapEff"])

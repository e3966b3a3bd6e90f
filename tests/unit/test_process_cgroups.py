"""Control groups, versions 1 and 2, against directory trees that behave as the kernel documents it."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from typing import Any

import testtools

from funcplat.drivers.process import cgroups, hierarchies

LIMITS = cgroups.Limits(memory=64 << 20, pids=32, cpu=250)
CONTROLLERS = ("memory", "pids", "cpu")


class TreeTestCase(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="cgroup-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.proc = self.root / "proc"
        self.proc.mkdir()

    def describe(self, mountinfo: list[str], membership: list[str]) -> None:
        """Write what /proc/self would say."""
        (self.proc / "mountinfo").write_text("".join(f"{line}\n" for line in mountinfo))
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in membership))


class LimitTest(TreeTestCase):
    """What is written into which file."""

    def group(self, version: int, *files: str) -> dict[str, str]:
        path = self.root / "group"
        path.mkdir()
        for name in files:
            (path / name).touch()
        hierarchy = cgroups.Hierarchy(version, str(self.root), frozenset(CONTROLLERS))
        cgroups.Cgroups((hierarchy,), {}).limit("group", LIMITS)
        return {each.name: each.read_text() for each in path.iterdir()}

    def test_version_1_limits_memory_and_swap_together(self) -> None:
        files = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max"]
        files += ["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us"]
        self.assertEqual(
            {
                "memory.limit_in_bytes": str(64 << 20),
                "memory.memsw.limit_in_bytes": str(64 << 20),
                "pids.max": "32",
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "25000",
                "cpu.cfs_burst_us": "25000",
            },
            self.group(1, *files),
        )

    def test_version_2_forbids_swap(self) -> None:
        files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.max.burst"]
        self.assertEqual(
            {
                "memory.max": str(64 << 20),
                "memory.swap.max": "0",
                "pids.max": "32",
                "cpu.max": "25000 100000",
                "cpu.max.burst": "25000",
            },
            self.group(2, *files),
        )

    def test_kernels_without_swap_accounting_and_burst_are_limited_all_the_same(self) -> None:
        self.assertEqual(
            {"memory.max", "pids.max", "cpu.max"}, set(self.group(2, "memory.max", "pids.max", "cpu.max"))
        )

    def test_a_tiny_share_of_a_processor_is_the_least_that_the_kernel_takes(self) -> None:
        for name in ("memory.max", "pids.max", "cpu.max"):
            (self.root / name).touch()
        hierarchy = cgroups.Hierarchy(2, str(self.root.parent), frozenset(CONTROLLERS))
        tiny = cgroups.Limits(memory=1 << 20, pids=1, cpu=1)
        cgroups.Cgroups((hierarchy,), {}).limit(self.root.name, tiny)
        self.assertEqual("1000 100000", (self.root / "cpu.max").read_text())


class GroupTest(TreeTestCase):
    def test_a_group_that_cannot_be_made_everywhere_is_made_nowhere(self) -> None:
        (self.root / "one").mkdir()
        places = [
            cgroups.Hierarchy(1, str(self.root / "one"), frozenset(["memory"])),
            cgroups.Hierarchy(1, str(self.root / "file"), frozenset(["pids"])),
        ]
        (self.root / "file").touch()
        self.assertRaises(NotADirectoryError, cgroups.Cgroups(tuple(places), {}).create, "group")
        self.assertEqual([], list((self.root / "one").iterdir()))

    def test_probes_of_others_are_no_groups_of_workers(self) -> None:
        for name in ("1-2-3", f"{cgroups.PROBE}x"):
            (self.root / "funcplat-x" / name).mkdir(parents=True)
        groups = cgroups.Cgroups((cgroups.Hierarchy(2, str(self.root / "funcplat-x"), frozenset()),), {})
        self.assertEqual({"1-2-3"}, groups.names())

    def test_a_directory_that_another_process_removed_is_made_again(self) -> None:
        hierarchy = cgroups.Hierarchy(1, str(self.root / "funcplat-x"), frozenset(["memory"]))
        cgroups.Cgroups((hierarchy,), {}).create("group")
        self.assertTrue((self.root / "funcplat-x/group").is_dir())

    def test_removing_a_missing_group_is_a_no_op(self) -> None:
        cgroups.remove(str(self.root / "missing"))

    def test_counts_are_read_by_their_key(self) -> None:
        path = self.root / "memory.events"
        path.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        self.assertEqual([2, 12, 0], [cgroups.count(descriptor, key) for key in ("oom_kill", "max", "none")])
        self.assertEqual(0, cgroups.count(-1, "oom_kill"))


class Version1Test(TreeTestCase):
    def test_each_controller_has_a_hierarchy_of_its_own(self) -> None:
        mountinfo = []
        for name, options in (
            ("memory", "rw,memory"),
            ("pids", "rw,pids"),
            ("cpu,cpuacct", "rw,cpu,cpuacct"),
        ):
            own = self.root / name / "service"
            own.mkdir(parents=True)
            mountinfo.append(f"30 20 0:1 / {self.root / name} rw shared:1 - cgroup cgroup {options}")
        self.describe(mountinfo, ["3:memory:/service", "2:cpu,cpuacct:/service", "1:pids:/", "0::/"])
        self._let_groups_have_files()
        found = hierarchies.detect("funcplat-x", None, self.proc)
        self.assertEqual({}, dict(found.missing))
        self.assertEqual(
            {
                str(self.root / "memory/service/funcplat-x"): {"memory"},
                str(self.root / "pids/funcplat-x"): {"pids"},
                str(self.root / "cpu,cpuacct/service/funcplat-x"): {"cpu"},
            },
            {each.path: set(each.controllers) for each in found.hierarchies},
        )

    def _let_groups_have_files(self) -> None:
        """A new directory of a cgroup file system has files in it, which a plain one has not."""
        self.patch(hierarchies, "_try", lambda path: None)

    def test_a_container_that_sees_a_part_of_the_hierarchy_finds_itself_in_it(self) -> None:
        (self.root / "memory").mkdir()
        mountinfo = f"30 20 0:1 /docker/abc {self.root / 'memory'} rw - cgroup cgroup rw,memory"
        self.describe([mountinfo], ["3:memory:/docker/abc"])
        self._let_groups_have_files()
        found = hierarchies.detect("funcplat-x", None, self.proc)
        self.assertEqual([str(self.root / "memory/funcplat-x")], [each.path for each in found.hierarchies])
        self.assertEqual({"pids", "cpu"}, set(found.missing))

    def test_the_operator_names_the_parent(self) -> None:
        (self.root / "memory").mkdir()
        mountinfo = f"30 20 0:1 / {self.root / 'memory'} rw - cgroup cgroup rw,memory"
        self.describe([mountinfo], ["3:memory:/somewhere"])
        self._let_groups_have_files()
        found = hierarchies.detect("funcplat-x", "/platform/workers", self.proc)
        self.assertEqual(
            [str(self.root / "memory/platform/workers/funcplat-x")], [each.path for each in found.hierarchies]
        )

    def test_no_hierarchy_at_all_is_told_for_each_controller(self) -> None:
        self.describe(["20 1 8:1 / / rw - ext4 /dev/sda1 rw"], ["0::/"])
        found = hierarchies.detect("funcplat-x", None, self.proc)
        self.assertEqual(((), set(CONTROLLERS)), (found.hierarchies, set(found.missing)))
        self.assertIn("Delegate=yes", found.missing["memory"])


class Version2Test(TreeTestCase):
    """A directory tree in which the driver's writes have the effects that the kernel documents."""

    def setUp(self) -> None:
        super().setUp()
        self.point = self.root / "unified"
        self.patch(hierarchies, "_try", lambda path: None)
        self.patch(cgroups, "write", self._write)
        self.patch(pathlib.Path, "mkdir", self._mkdir_as_the_kernel(pathlib.Path.mkdir))

    def _mkdir_as_the_kernel(self, mkdir: Any) -> Any:
        def make(path: pathlib.Path, *arguments: Any, **keywords: Any) -> None:
            existed = path.exists()
            mkdir(path, *arguments, **keywords)
            if not existed and path.is_relative_to(self.point) and path != self.point:
                handed = (path.parent / "cgroup.subtree_control").read_text()
                self.fill(path, handed)

        return make

    def fill(self, path: pathlib.Path, controllers: str, processes: str = "", inner: bool = True) -> None:
        """The files of a group."""
        (path / "cgroup.controllers").write_text(controllers)
        (path / "cgroup.subtree_control").write_text("")
        (path / "cgroup.procs").write_text(processes)
        if inner:
            (path / "cgroup.type").write_text("domain\n")

    def _write(self, path: str, value: str) -> None:
        """Write as the kernel does: processes move, and a group with processes hands nothing down."""
        file = pathlib.Path(path)
        group = file.parent
        if file.name == "cgroup.procs":
            for other in self.point.rglob("cgroup.procs"):
                other.write_text("".join(f"{pid}\n" for pid in other.read_text().split() if pid != value))
            file.write_text(file.read_text() + f"{value}\n")
        elif file.name == "cgroup.subtree_control":
            if (group / "cgroup.type").exists() and (group / "cgroup.procs").read_text().strip():
                raise OSError(16, "Device or resource busy", path)
            self.assertIn(value.lstrip("+"), (group / "cgroup.controllers").read_text())
            file.write_text(f"{file.read_text()} {value.lstrip('+')}".strip())
            for child in group.iterdir():
                if child.is_dir():
                    (child / "cgroup.controllers").write_text(file.read_text())

    def mount(self, own: str, root: str = "/") -> None:
        line = f"30 20 0:1 {root} {self.point} rw - cgroup2 cgroup2 rw,nsdelegate"
        self.describe([line], [f"0::{own}"])

    def make(self, path: str, processes: str = "", inner: bool = True) -> pathlib.Path:
        group = self.point / path
        os.makedirs(group, exist_ok=True)
        self.fill(group, "cpu memory pids", processes, inner)
        return group

    def detect(self, parent: str | None = None) -> cgroups.Cgroups:
        return hierarchies.detect("funcplat-x", parent, self.proc)

    def assert_in(self, directory: pathlib.Path, found: cgroups.Cgroups) -> None:
        self.assertEqual({}, dict(found.missing))
        (hierarchy,) = found.hierarchies
        self.assertEqual(str(directory / "funcplat-x"), hierarchy.path)
        self.assertEqual(set(CONTROLLERS), hierarchy.controllers)
        handed = (directory / "funcplat-x" / "cgroup.subtree_control").read_text().split()
        self.assertEqual(set(CONTROLLERS), set(handed))

    def test_the_server_moves_to_a_leaf_of_its_delegated_group(self) -> None:
        self.make("", inner=False)
        unit = self.make("unit", f"{os.getpid()}\n")
        self.mount("/unit")
        self.assert_in(unit, self.detect())
        self.assertEqual(f"{os.getpid()}\n", (unit / "funcplat-server/cgroup.procs").read_text())
        self.assertEqual("", (unit / "cgroup.procs").read_text())

    def test_a_server_in_a_leaf_uses_the_group_above(self) -> None:
        self.make("", inner=False)
        unit = self.make("unit")
        self.make("unit/funcplat-server", f"{os.getpid()}\n")
        self.mount("/unit/funcplat-server")
        self.assert_in(unit, self.detect())

    def test_a_slice_of_other_units_is_not_used(self) -> None:
        self.make("", inner=False)
        self.make("system.slice")
        unit = self.make("system.slice/unit", f"{os.getpid()}\n")
        self.mount("/system.slice/unit")
        self.assert_in(unit, self.detect())

    def test_a_group_that_systemd_delegated_with_a_subgroup_is_used(self) -> None:
        self.make("", inner=False)
        unit = self.make("unit")
        self.make("unit/server", f"{os.getpid()}\n")
        self.patch(hierarchies, "_is_delegated", lambda group: group == unit)
        self.mount("/unit/server")
        self.assert_in(unit, self.detect())

    def test_a_group_with_processes_of_others_is_left_alone(self) -> None:
        top = self.make("", inner=False)
        session = self.make("session", f"{os.getpid()}\n1\n")
        self.mount("/session")
        self.assert_in(top, self.detect())
        self.assertEqual(f"{os.getpid()}\n1\n", (session / "cgroup.procs").read_text())

    def test_the_root_that_a_container_sees_is_emptied(self) -> None:
        top = self.make("", f"1\n{os.getpid()}\n")
        self.mount("/")
        self.assert_in(top, self.detect())
        self.assertEqual(["1", str(os.getpid())], (top / "funcplat-server/cgroup.procs").read_text().split())

    def test_the_operators_group_is_used_and_no_other(self) -> None:
        top = self.make("", inner=False)
        self._write(str(top / "cgroup.subtree_control"), "+memory")
        self._write(str(top / "cgroup.subtree_control"), "+pids")
        self._write(str(top / "cgroup.subtree_control"), "+cpu")
        chosen = self.make("chosen")
        self.make("unit", f"{os.getpid()}\n")
        self.mount("/unit")
        self.assert_in(chosen, self.detect("/chosen"))
        self.assertFalse((self.point / "unit/funcplat-x").exists())

    def test_an_operators_group_with_processes_in_it_is_refused(self) -> None:
        self.make("", inner=False)
        self.make("chosen", "1\n")
        self.mount("/")
        found = self.detect("/chosen")
        self.assertEqual(((), set(CONTROLLERS)), (found.hierarchies, set(found.missing)))
        self.assertIn("busy", found.missing["memory"])

    def test_a_controller_that_is_not_delegated_is_missing_alone(self) -> None:
        top = self.make("", inner=False)
        unit = self.make("unit", f"{os.getpid()}\n")
        (unit / "cgroup.controllers").write_text("memory pids")
        (top / "cgroup.controllers").write_text("memory pids")
        self.mount("/unit")
        found = self.detect()
        self.assertEqual({"cpu"}, set(found.missing))
        self.assertEqual({"memory", "pids"}, set(found.controllers()))

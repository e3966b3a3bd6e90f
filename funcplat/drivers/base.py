"""The public interface of orchestrator drivers: where workers run.

A driver starts, finds and stops *workers* and returns their addresses.  It is never on the path
of a call: the platform talks to the worker itself (`docs`: the worker protocol).

A third-party driver subclasses `OrchestratorDriver`, names the class in the entry point group
``funcplat.orchestrator`` and runs `funcplat.testing.OrchestratorDriverTests` against it.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime
import enum
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from funcplat import errors

API_VERSION = 1
"""The version of this interface; the loader refuses a driver of another one and names both."""


class Capability(enum.StrEnum):
    """What a driver can do beyond starting and stopping workers."""

    # shows WorkerSpec.code_path read-only to the worker, at /code or what Handle.data["code"] says; else
    # code is pushed
    CODE_PATH = "code_path"
    POOL = "pool"  # keeps warm, unattached workers per runtime
    LOGS = "logs"  # worker_logs
    RUN_IMAGE = "run_image"  # inspect_image and run_image; start_worker of a user's image that is a worker
    SURVIVES = "survives"  # workers outlive the server that started them and are adopted


class Isolation(enum.StrEnum):
    """How strongly one aspect of a worker is isolated or limited on this machine."""

    ENFORCED = "enforced"  # by the kernel or engine, against a hostile function
    PARTIAL = "partial"  # bounded, but not exactly or not against a hostile function
    NONE = "none"  # not at all


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """One line of what a driver enforces here: shown by ``drivers list`` and at start."""

    name: str  # mounts, pids, network, user, seccomp, cpu, memory, disk, ...
    isolation: Isolation
    detail: str  # by what, or why not and what would help


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a worker listens: a Unix socket of this machine, or host and port."""

    socket: str | None = None
    host: str | None = None
    port: int | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Handle:
    """All a later process needs to find, call and stop a worker; JSON in the worker's row."""

    worker_id: str
    address: Address
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the driver's own, JSON types
    version: int = 1  # of `data`, the driver's own count

    def to_json(self) -> dict[str, Any]:
        return {
            "worker_id": self.worker_id,
            "address": self.address.to_json(),
            "data": dict(self.data),
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Handle:
        return cls(value["worker_id"], Address(**value["address"]), value["data"], value["version"])


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker to start.  The limits bind the whole worker and must be enforced or declared not to be."""

    worker_id: str  # uuid; the driver names its object after it
    owner: str  # id of this installation; label everything with it
    image: str  # the runtime's image
    cpu: int  # millicores
    memory: int  # bytes
    pids: int  # processes and threads
    disk: int  # bytes of scratch space
    concurrency: int  # executions at once
    code_path: pathlib.Path | None = None  # unpacked package, with Capability.CODE_PATH only
    carries_function: bool = False  # the image is a user's, and holds the function; no pool is kept of it
    trusted: bool = True  # of the runtime; an untrusted one may get stronger isolation
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # function, revision, project
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)  # for run_image; a worker gets
    # that of its function with the code


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that exists, as the driver's engine sees it."""

    worker_id: str
    handle: Handle
    running: bool
    detail: str = ""  # why it is not running: out of memory, killed, exit code


class ImageKind(enum.StrEnum):
    """What an image that a user names as the code of a function is."""

    ONE_SHOT = "one-shot"  # a program: run_image, once for each execution
    WORKER = "worker"  # it declares the worker contract and carries its function: start_worker, kept warm


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image, as the driver's engine has it."""

    kind: ImageKind
    pin: str  # names exactly this image for ever: name@sha256:..., or the engine's own sha256:... of one that
    # no registry is known to have


@dataclasses.dataclass(frozen=True, slots=True)
class ImageRun:
    """The outcome of an image function's one run."""

    exit_code: int
    log: bytes  # standard output and error, interleaved; the first of them where there was too much
    duration: float  # seconds
    timed_out: bool = False
    out_of_memory: bool = False
    log_dropped: int = 0  # bytes of output that are not in the log


@dataclasses.dataclass(frozen=True, slots=True)
class PoolState:
    """Workers of a runtime's pool: how many there may be, how many are unattached."""

    total: int
    available: int


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What a driver is given beside its options."""

    owner: str  # id of this installation
    state_dir: pathlib.Path  # the driver may use <state_dir>/<its name>/
    exposed: bool  # the API listens beyond loopback: weak isolation must be refused
    clock: Callable[[], datetime.datetime]


class OrchestratorDriver(abc.ABC):
    """Starts, finds and stops workers.

    Methods are called from several threads at once, each with a ``deadline`` of seconds that remain.
    A driver keeps no memory of workers: any process must be able to call it after a crash with the
    handle that the database holds.  Only `funcplat.errors.DriverError` and its children may leave
    a method; errors of an SDK are translated at the edge (``raise ... from``).
    """

    api_version: ClassVar[int] = API_VERSION
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    opts: ClassVar[Sequence[cfg.Opt]] = ()
    """Options, registered by the loader in the group ``[orchestrator_<name>]``."""

    def __init__(self, options: cfg.ConfigOpts.GroupAttr, context: Context) -> None:
        """Store what is given; touch nothing outside."""
        self.options = options
        self.context = context

    def check(self) -> None:
        """Raise a DriverError that says why the driver cannot work on this machine now."""

    def close(self) -> None:
        """Release what this process holds.  Idempotent."""

    def features(self) -> Iterable[Feature]:
        """What is enforced on this machine, for people."""
        return ()

    @abc.abstractmethod
    def check_image(self, image: str, deadline: float) -> None:
        """Raise ImageUnknown (with the reason) where no worker of this image can be started."""

    @abc.abstractmethod
    def start_worker(self, spec: WorkerSpec, deadline: float) -> Handle:
        """Start a worker and return when it exists (it may not be ready yet).

        Idempotent by ``spec.worker_id``: a second call returns the handle of the existing one.
        Raises NoCapacity, ImageUnknown, DriverUnavailable; then nothing is left behind.
        """

    @abc.abstractmethod
    def stop_worker(self, handle: Handle, grace: float, deadline: float) -> None:
        """Stop a worker and remove all that belongs to it; return when it is gone.

        It is asked to end first and killed after ``grace`` seconds.  An unknown worker: returns.  The handle
        of a worker, or of the run of an image, that was begun by a server which died then has an empty
        address and no data: what is named after its id goes.
        """

    @abc.abstractmethod
    def list_workers(self, deadline: float) -> Iterable[WorkerState]:
        """Every worker of this installation that exists, whoever started it."""

    def pool(self, image: str, deadline: float) -> PoolState:
        """The runtime's pool.  Needs Capability.POOL."""
        raise _not_supported(self, Capability.POOL)

    def worker_logs(self, handle: Handle, limit: int, deadline: float) -> bytes:
        """The last ``limit`` bytes that the worker itself (not a function) wrote.  Needs Capability.LOGS."""
        raise _not_supported(self, Capability.LOGS)

    def inspect_image(self, image: str, deadline: float) -> ImageInfo:
        """Look at a user's image, which is pulled where the engine does not have it.

        A worker of kind WORKER is started by `start_worker` with the pin as ``spec.image`` and no code path;
        it is loaded without package, path and entry, since it carries its function.  Raises ImageUnknown and
        its children, DriverUnavailable while it is being pulled.  Needs Capability.RUN_IMAGE.
        """
        raise _not_supported(self, Capability.RUN_IMAGE)

    def run_image(
        self, spec: WorkerSpec, arguments: Sequence[str], timeout: float, deadline: float
    ) -> ImageRun:
        """Run an image function once and remove it in every case, within the limits of the spec.

        ``arguments`` replace the command of the image, not its entry point; none: what the image says.
        It is killed after ``timeout`` seconds, and when `stop_worker` is called for its ``worker_id`` with an
        empty Address; it has ended by SIGKILL then (exit code 137), or is a DriverError where it had not
        begun.  A run under way when the driver is closed is ended and raises DriverUnavailable.  Needs
        Capability.RUN_IMAGE.
        """
        raise _not_supported(self, Capability.RUN_IMAGE)


def _not_supported(driver: object, capability: Capability) -> Exception:
    return errors.NotSupported(f"{type(driver).__name__} has no capability {capability!r}")

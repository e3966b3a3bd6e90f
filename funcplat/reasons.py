"""Why an execution, a job, a worker or a runtime is as it is."""

from __future__ import annotations

import dataclasses
import enum


class ReasonCode(enum.StrEnum):
    """Why an execution did not simply succeed, or why a worker or runtime is as it is.

    The codes are part of the API: a code is never renamed and never changes its meaning.
    """

    # executions that failed: the function's doing
    FUNCTION_RAISED = "function_raised"  # the function raised an exception
    FUNCTION_EXITED = "function_exited"  # its process ended: os._exit, sys.exit
    FUNCTION_CRASHED = "function_crashed"  # its process died of a signal of its own
    IMPORT_FAILED = "import_failed"  # the entry's module raised while it was imported
    ENTRY_NOT_FOUND = "entry_not_found"  # no such module or function in the package
    IMPORT_TIMEOUT = "import_timeout"  # the import took longer than the operator allows
    BAD_ARGUMENTS = "bad_arguments"  # the input does not fit the function's parameters
    RESULT_NOT_JSON = "result_not_json"  # the return value cannot be written as JSON
    RESULT_TOO_LARGE = "result_too_large"  # ... is over the cap
    TIMEOUT = "timeout"  # the execution ran into its timeout
    MEMORY_EXCEEDED = "memory_exceeded"  # ... into the memory limit
    PIDS_EXCEEDED = "pids_exceeded"  # ... into the process limit
    DISK_FULL = "disk_full"  # ... into the limit of its scratch space
    # executions that succeeded, with a remark
    LOG_TRUNCATED = "log_truncated"  # more output than the cap keeps
    PROCESSES_KILLED = "processes_killed"  # it left processes behind, which were killed
    # executions that the platform could not finish
    WORKER_DIED = "worker_died"  # the worker went away during the execution
    WORKER_STOPPED = "worker_stopped"  # the worker was stopped: update, detach, scale down, shutdown
    START_FAILED = "start_failed"  # no worker could be started
    NO_CAPACITY = "no_capacity"  # a cap of the function, project or host was reached
    QUEUE_FULL = "queue_full"  # too many calls waited for a worker
    QUEUE_TIMEOUT = "queue_timeout"  # no worker became free in time
    SERVER_LOST = "server_lost"  # the server that ran it went away
    EXPIRED = "expired"  # it waited for longer than its maximum age
    CANCELLED = "cancelled"  # its project or an admin cancelled it
    RUNTIME_NOT_AVAILABLE = "runtime_not_available"  # the runtime is not available any more
    FUNCTION_DELETED = "function_deleted"  # the function was deleted while the call waited
    PLATFORM_ERROR = "platform_error"  # a defect or an outage of the platform
    # runtimes
    IMAGE_UNKNOWN = "image_unknown"  # no driver can run this image
    DRIVER_UNAVAILABLE = "driver_unavailable"  # the driver's engine did not answer
    # jobs
    TARGET_NOT_FOUND = "target_not_found"  # its function, version or alias is gone
    JOB_INVALID = "job_invalid"  # its pattern, time zone or input cannot be used
    TICKS_MISSED = "ticks_missed"  # a remark: no engine was there in time
    # workers
    IDLE = "idle"  # drained after the idle timeout
    SUPERSEDED = "superseded"  # the function's code, limits or runtime changed
    DETACHED = "detached"  # detached by an operator
    SCALED_DOWN = "scaled_down"  # scaled down by an operator or to make room
    ORPHANED = "orphaned"  # found without its worker, row or server


@dataclasses.dataclass(frozen=True, slots=True)
class Reason:
    """Why something is as it is: a stable code and a sentence that says what to do."""

    code: ReasonCode
    message: str

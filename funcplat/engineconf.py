"""The options of the engine, which works off the queue and cleans up; a part of `funcplat.conf`."""

from __future__ import annotations

from oslo_config import cfg

ENGINE_OPTS: list[cfg.Opt] = [
    cfg.FloatOpt(
        "poll_interval",
        default=0.5,
        min=0.05,
        help="Seconds between looks for queued executions and changes that other processes made.",
    ),
    cfg.FloatOpt(
        "lease",
        default=6.0,
        min=3.0,
        help="Seconds after which a running execution whose server does not renew it counts as lost. "
        "Renewed three times in that span. What a dead server ran goes on elsewhere a second later.",
    ),
    cfg.IntOpt(
        "max_attempts",
        default=3,
        min=1,
        help="How often an asynchronous execution is started that the platform fails to run: its server or "
        "worker dies, no worker can be started. Then it is a dead letter.",
    ),
    cfg.FloatOpt(
        "retry_delay",
        default=1.0,
        min=0.0,
        help="Seconds before the second attempt, twice as many before each further one. Between half and all "
        "of it, at random, so that what failed together does not come back together.",
    ),
    cfg.FloatOpt(
        "retry_max_delay",
        default=60.0,
        min=0.0,
        help="Most seconds before another attempt.",
    ),
    cfg.FloatOpt(
        "max_age",
        default=86400.0,
        min=0.0,
        help="Seconds that an asynchronous execution may wait, all its attempts taken together; one that "
        "waits longer is a dead letter, with the reason 'expired'. 0: for ever.",
    ),
    cfg.IntOpt(
        "concurrency",
        default=64,
        min=1,
        help="Asynchronous executions that one engine runs at once. One project gets at most three times as "
        "many of them as it leaves free.",
    ),
    cfg.IntOpt(
        "concurrency_per_function",
        default=32,
        min=1,
        help="Asynchronous executions of one function that one engine runs at once.",
    ),
    cfg.FloatOpt(
        "schedule_interval",
        default=1.0,
        min=0.05,
        help="Seconds between looks for jobs that other processes made or changed. For jobs that it knows an "
        "engine wakes up when they are due.",
    ),
    cfg.FloatOpt(
        "tick_tolerance",
        default=60.0,
        min=1.0,
        help="Seconds after which a tick of a job that no engine has made counts as missed: the job's "
        "missed_ticks says what becomes of it.",
    ),
    cfg.FloatOpt(
        "reap_interval",
        default=5.0,
        min=0.1,
        help="Seconds between rounds of the reaper: idle, dead and foreign workers, unreferenced packages.",
    ),
]

RETENTION_OPTS: list[cfg.Opt] = [
    cfg.FloatOpt(
        "executions",
        default=30 * 86400.0,
        min=0.0,
        help="Seconds after its end for which an execution is kept, with its result and log. 0: until "
        "somebody deletes it. 30 days, so that no disk fills up unnoticed. Dead letters are kept until "
        "they are redriven or purged.",
    ),
    cfg.FloatOpt(
        "logs",
        default=7 * 86400.0,
        min=0.0,
        help="Seconds after the end of an execution for which its log is kept; a sentence that says so takes "
        "its place. 0: as long as the execution. Logs take most of the space.",
    ),
]

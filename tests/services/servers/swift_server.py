"""Swift's servers as green threads of one process.

    swift_server.py DIRECTORY KIND:PORT...

DIRECTORY holds swift.conf and a KIND.conf each; the rings are written here.  Run by the interpreter of the
environment that Swift is installed in.  The applications, pipelines and sockets are those of the commands
swift-KIND-server.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from swift.common import utils

utils.monkey_patch()
# policies and constraints are read when their modules are imported: say where from before that
utils.set_swift_dir(sys.argv[1])

import eventlet  # noqa: E402
from swift.common import wsgi  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.utils import logs  # noqa: E402

PART_POWER = 4


class StandardError(logging.StreamHandler):
    """Instead of syslog, which is not here."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(sys.__stderr__)

    def createLock(self) -> None:
        self.lock = logs.NoopMutex()


def write_ring(directory: str, kind: str, port: int) -> None:
    """A ring of one replica on one device."""
    address = {"ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port}
    builder = RingBuilder(PART_POWER, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "device": "d1", "weight": 1, **address})
    builder.rebalance()
    builder.get_ring().save(f"{directory}/{kind}.ring.gz")


def choose_hub_once() -> None:
    """Every server of Swift chooses eventlet's hub; a second choice in a thread orphans the first server.

    Swift's disk threads have hubs of their own and must go on choosing.
    """
    choose = eventlet.hubs.use_hub
    identify = eventlet.patcher.original("threading").get_ident
    main_thread = identify()
    choose(wsgi.get_hub())
    eventlet.hubs.use_hub = lambda hub=None: None if identify() == main_thread else choose(hub)


def start(directory: str, kind: str) -> Any:
    path = f"{directory}/{kind}.conf"
    configuration, logger, log_name = wsgi._initrp(path, f"{kind}-server")
    configuration["__file__"] = path
    socket = wsgi.get_socket(configuration)
    names = {"log_name": log_name}
    return eventlet.spawn(wsgi.run_server, configuration, logger, socket, global_conf=names)


def main(directory: str, servers: Sequence[str]) -> None:
    # run_server's own handler would signal the whole process group
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    logs.ThreadSafeSysLogHandler = StandardError
    ports = {kind: int(port) for kind, port in (server.split(":") for server in servers)}
    for kind in ("account", "container", "object"):
        write_ring(directory, kind, ports[kind])
    choose_hub_once()
    for thread in [start(directory, kind) for kind in ports]:
        thread.wait()


main(sys.argv[1], sys.argv[2:])

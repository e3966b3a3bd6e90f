"""Waits until its standard input ends, then stops the servers of a session.

python -m tests.services.keeper DIRECTORY
"""

from __future__ import annotations

import pathlib
import signal
import sys

from tests.services import session


def main(directory: pathlib.Path) -> int:
    # only the end of its starter ends it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    complaints = session.stop_all(directory)
    # nobody may be left to read this
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if complaints:
        print("\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))

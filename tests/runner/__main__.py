"""What tools/test does once its virtual environment is there."""

from __future__ import annotations

import concurrent.futures
import signal
import sys
import traceback

from tests.runner import arguments, checks, report, servers, stream
from tests.services import access, session


def run(options: arguments.Options, told: report.Report) -> None:
    """Checks, servers, tests; servers are stopped in the end, whatever happens."""
    servers.name_kube_scripts()
    if options.quick:
        told.omit("everything but unit tests: --quick")
        stream.run(options.pattern, True, {}, told)
        return
    if options.pattern is not None:
        told.omit("checks besides tests: a pattern was given")
        names = stream.select(options.pattern, told)
        if all(name.startswith("tests.unit.") for name in names):
            # no servers, which unit tests have no use for
            if names:
                stream.run(options.pattern, True, {}, told)
            return
    environment = _prepare(options, told)
    own = session.Session()
    try:
        environment |= servers.start(own, told)
        stream.run(options.pattern, False, environment, told)
    finally:
        _close(own, told)


def _close(own: session.Session, told: report.Report) -> None:
    try:
        own.close()
    except session.StopError as error:
        told.fail("stopping the servers", str(error))


def _prepare(options: arguments.Options, told: report.Report) -> dict[str, str]:
    """Install and check side by side; variables for the tests."""
    environment = {access.ALL_VARIABLE: "1"} if options.everything else {}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        steps = [pool.submit(servers.install, told)] if options.everything else []
        qinling = pool.submit(servers.qinling, told, options.everything)
        steps += [pool.submit(checks.run_all, told)] if options.pattern is None else []
        for step in steps:
            step.result()
    return environment | qinling.result()


def main() -> int:
    # SIGTERM too runs the `finally`s
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, told = arguments.parse(sys.argv[1:]), report.Report()
    try:
        run(options, told)
    except KeyboardInterrupt:
        told.fail("tools/test", "interrupted")
    except Exception:
        # a defect of this program: the last line of the output is promised all the same
        told.fail("tools/test", traceback.format_exc())
    return told.conclude(skips_fail=options.everything)


if __name__ == "__main__":
    sys.exit(main())

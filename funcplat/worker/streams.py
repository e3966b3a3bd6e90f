"""``sys.stdout`` and ``sys.stderr`` of functions."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback


class _Output(io.FileIO):
    """A descriptor that will be the log's pipe, whatever it is when this is made."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)

    def seekable(self) -> bool:
        return False


class Streams:
    """Both streams on one pipe, line by line, so that their order is kept."""

    def __init__(self) -> None:
        self.out = _text(1)
        self.err = _text(2)

    def install(self) -> None:
        """Make them those of this process; undoes what an earlier execution put in their place."""
        sys.stdout, sys.stderr = self.out, self.err

    def install_for_good(self) -> None:
        """Make them the original ones, too, and have something to read from."""
        if sys.stdin is None:
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
        vars(sys).update(__stdin__=sys.stdin, __stdout__=self.out, __stderr__=self.err)
        self.install()

    def flush(self) -> bool:
        """Write out what is buffered; return whether the streams can be used further."""
        try:
            if sys.stdout is not self.out:
                sys.stdout.flush()
            self.out.flush()
            self.err.flush()
        except BaseException:
            return False
        return True

    def trace(self, error: BaseException) -> None:
        """Write the traceback of the user's frames."""
        self.flush()
        try:
            frame = error.__traceback__
            while frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith(
                "funcplat.worker"
            ):
                frame = frame.tb_next
            lines = "".join(traceback.format_exception(type(error), error, frame))
        except BaseException:
            lines = f"{type(error).__name__}\n"
        with contextlib.suppress(BaseException):
            self.err.write(lines)
            self.err.flush()


def _text(fd: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(fd)), "utf-8", errors="backslashreplace", line_buffering=True
    )


# PERF: made once, in the process that all workers share: making them costs 300 KiB of every fork.
STREAMS = Streams()

"""The tests.

What sets up the machine (``tools/quickstart``, ``tools/test``) imports this package, and a new machine has no
library yet: nothing here but the standard library.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has started the tests in the background. What they start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""The tests."""

import signal

import hypothesis

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "funcplat", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("funcplat")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has started the tests in the background. What they start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""How hypothesis looks for examples; imported by the packages whose tests use it."""

import hypothesis

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "funcplat", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("funcplat")

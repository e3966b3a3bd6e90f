"""The options of [webhooks]."""

from __future__ import annotations

from oslo_config import cfg

from funcplat import errors

OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "max_body_size",
        default=1024 * 1024,
        min=1,
        help="Largest body of a call of a webhook, in bytes; not over [resource_limits] max_input, which the "
        "arguments made of it must not exceed either.",
    ),
    cfg.FloatOpt(
        "tolerance",
        default=300.0,
        min=1.0,
        help="Seconds that the timestamp of a signed call may be off the database's clock; what was signed "
        "longer ago is refused. 300 is what Standard Webhooks proposes.",
    ),
    cfg.FloatOpt(
        "remember",
        default=86400.0,
        min=1.0,
        help="Seconds for which ids of signed calls are known, so that none runs twice; at least twice "
        "the tolerance. Longer than senders try again.",
    ),
    cfg.FloatOpt(
        "rotation_overlap",
        default=86400.0,
        min=0.0,
        help="Seconds for which a secret that was rotated out is accepted, where the request does not say. "
        "A day is time to tell the sender.",
    ),
]


def check(conf: cfg.ConfigOpts) -> None:
    """Raise ConfigError where options contradict each other."""
    if conf.webhooks.remember < 2 * conf.webhooks.tolerance:
        raise errors.ConfigError(
            f"[webhooks] remember = {conf.webhooks.remember:g} must be at least twice "
            f"tolerance = {conf.webhooks.tolerance:g}, else a signed call could be replayed"
        )

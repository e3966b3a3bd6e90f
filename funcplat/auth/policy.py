"""Who may do what: oslo.policy rules with defaults in code, which a file may override.

What belongs to another project is "not found" before any rule is asked; the rules say which operations need
a role.  They are those of the old API: pools, workers and other projects' lists are for admins.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from oslo_config import cfg
from oslo_policy import policy

from funcplat import errors
from funcplat.auth.base import Identity

LOG = logging.getLogger(__name__)

LOOK_INTERVAL = 1.0
"""Seconds for which policy files are not looked at again."""

FORGET_INTERVAL = 10.0
"""Seconds for which decisions are remembered while no file changes: rules may ask another server."""

MAX_REMEMBERED = 10_000
"""Decisions that are remembered at most; more callers than that in a second are not remembered."""

ADMIN, OWNER, DEFAULT = "rule:admin", "rule:owner", "rule:default"

_BASE_RULES = (
    policy.RuleDefault("admin", "role:admin", "Who administers the platform."),
    policy.RuleDefault("owner", "project_id:%(project_id)s", "Who belongs to the resource's project."),
    policy.RuleDefault("default", "rule:admin or rule:owner", "Rule of every operation that names no other."),
)


def _rule(name: str, check: str, description: str, method: str, path: str) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(name, check, description, [{"method": method, "path": path}])


_RUNTIME = "/v1/runtimes/{runtime_id}"
_FUNCTION = "/v1/functions/{function_id}"
_VERSIONS = f"{_FUNCTION}/versions"
_VERSION = f"{_VERSIONS}/{{version_number}}"
_ALIAS = "/v1/aliases/{alias_name}"
_EXECUTION = "/v1/executions/{execution_id}"

_RUNTIME_RULES = (
    _rule(
        "runtime:list", DEFAULT, "List runtimes: public ones and those of the project.", "GET", "/v1/runtimes"
    ),
    _rule("runtime:get", DEFAULT, "Show a runtime.", "GET", _RUNTIME),
    _rule("runtime:create", ADMIN, "Create a runtime.", "POST", "/v1/runtimes"),
    _rule("runtime:update", ADMIN, "Change a runtime's name, description or image.", "PUT", _RUNTIME),
    _rule("runtime:delete", ADMIN, "Delete a runtime that no function uses.", "DELETE", _RUNTIME),
    _rule("runtime:pool", ADMIN, "Show how many workers a runtime's pool has.", "GET", f"{_RUNTIME}/pool"),
)
_FUNCTION_RULES = (
    _rule("function:list", DEFAULT, "List the project's functions.", "GET", "/v1/functions"),
    _rule(
        "function:list:all_projects",
        ADMIN,
        "List functions of every project.",
        "GET",
        "/v1/functions?all_projects=true",
    ),
    _rule("function:get", DEFAULT, "Show a function or download its package.", "GET", _FUNCTION),
    _rule("function:create", DEFAULT, "Create a function.", "POST", "/v1/functions"),
    _rule("function:update", DEFAULT, "Change a function or its code.", "PUT", _FUNCTION),
    _rule("function:delete", OWNER, "Delete a function: its project alone, not admins.", "DELETE", _FUNCTION),
    _rule("function:scale_up", ADMIN, "Start workers of a function.", "POST", f"{_FUNCTION}/scale_up"),
    _rule("function:scale_down", ADMIN, "Stop workers of a function.", "POST", f"{_FUNCTION}/scale_down"),
    _rule("function:detach", ADMIN, "Stop every worker of a function.", "POST", f"{_FUNCTION}/detach"),
    _rule("function_worker:list", ADMIN, "List the workers of a function.", "GET", f"{_FUNCTION}/workers"),
)
_VERSION_RULES = (
    _rule("function_version:list", DEFAULT, "List the versions of a function.", "GET", _VERSIONS),
    _rule("function_version:get", DEFAULT, "Show a version or download its package.", "GET", _VERSION),
    _rule(
        "function_version:create", OWNER, "Create a version: the function's project alone.", "POST", _VERSIONS
    ),
    _rule(
        "function_version:delete",
        OWNER,
        "Delete a version: the function's project alone.",
        "DELETE",
        _VERSION,
    ),
    _rule("function_version:scale_up", ADMIN, "Start workers of a version.", "POST", f"{_VERSION}/scale_up"),
    _rule(
        "function_version:scale_down", ADMIN, "Stop workers of a version.", "POST", f"{_VERSION}/scale_down"
    ),
    _rule("function_version:detach", ADMIN, "Stop every worker of a version.", "POST", f"{_VERSION}/detach"),
)
_ALIAS_RULES = (
    _rule("function_alias:list", DEFAULT, "List the project's aliases.", "GET", "/v1/aliases"),
    _rule(
        "function_alias:list:all_projects",
        ADMIN,
        "List aliases of every project.",
        "GET",
        "/v1/aliases?all_projects=true",
    ),
    _rule("function_alias:get", DEFAULT, "Show an alias.", "GET", _ALIAS),
    _rule("function_alias:create", DEFAULT, "Create an alias.", "POST", "/v1/aliases"),
    _rule("function_alias:update", DEFAULT, "Lead an alias elsewhere.", "PUT", _ALIAS),
    _rule("function_alias:delete", DEFAULT, "Delete an alias.", "DELETE", _ALIAS),
)
_EXECUTION_RULES = (
    _rule("execution:list", DEFAULT, "List the project's executions.", "GET", "/v1/executions"),
    _rule(
        "execution:list:all_projects",
        ADMIN,
        "List executions of every project.",
        "GET",
        "/v1/executions?all_projects=true",
    ),
    _rule("execution:create", DEFAULT, "Run a function.", "POST", "/v1/executions"),
    _rule("execution:get", DEFAULT, "Show an execution.", "GET", _EXECUTION),
    _rule("execution:log", DEFAULT, "Read the log of an execution.", "GET", f"{_EXECUTION}/log"),
    _rule("execution:delete", DEFAULT, "Delete an execution.", "DELETE", _EXECUTION),
    _rule("execution:cancel", DEFAULT, "Cancel an execution.", "POST", f"{_EXECUTION}/cancel"),
)
_DEAD_LETTERS = "/v1/dead_letters"
_DEAD_LETTER_RULES = (
    _rule("dead_letter:list", DEFAULT, "List the project's dead letters.", "GET", _DEAD_LETTERS),
    _rule(
        "dead_letter:list:all_projects",
        ADMIN,
        "List dead letters of every project.",
        "GET",
        f"{_DEAD_LETTERS}?all_projects=true",
    ),
    _rule(
        "dead_letter:redrive",
        DEFAULT,
        "Queue dead letters again, one (POST /v1/executions/{execution_id}/redrive) or many.",
        "POST",
        f"{_DEAD_LETTERS}/redrive",
    ),
    _rule("dead_letter:purge", DEFAULT, "Delete dead letters.", "POST", f"{_DEAD_LETTERS}/purge"),
)
_STATS_RULES = (_rule("stats:get", ADMIN, "Count the executions of all projects.", "GET", "/v1/stats"),)

_JOB = "/v1/jobs/{job_id}"
_JOB_RULES = (
    _rule("job:list", DEFAULT, "List the project's jobs.", "GET", "/v1/jobs"),
    _rule("job:list:all_projects", ADMIN, "List jobs of every project.", "GET", "/v1/jobs?all_projects=true"),
    _rule("job:get", DEFAULT, "Show a job.", "GET", _JOB),
    _rule("job:create", DEFAULT, "Create a job.", "POST", "/v1/jobs"),
    _rule("job:update", DEFAULT, "Change, pause, resume or cancel a job.", "PUT", _JOB),
    _rule("job:delete", DEFAULT, "Delete a job.", "DELETE", _JOB),
)

_WEBHOOK = "/v1/webhooks/{webhook_id}"
_WEBHOOK_RULES = (
    _rule("webhook:list", DEFAULT, "List the project's webhooks.", "GET", "/v1/webhooks"),
    _rule(
        "webhook:list:all_projects",
        ADMIN,
        "List webhooks of every project.",
        "GET",
        "/v1/webhooks?all_projects=true",
    ),
    _rule("webhook:get", DEFAULT, "Show a webhook.", "GET", _WEBHOOK),
    _rule("webhook:create", DEFAULT, "Create a webhook.", "POST", "/v1/webhooks"),
    _rule("webhook:update", DEFAULT, "Change a webhook.", "PUT", _WEBHOOK),
    _rule("webhook:rotate", DEFAULT, "Give a webhook another secret.", "POST", f"{_WEBHOOK}/rotate"),
    _rule("webhook:delete", DEFAULT, "Delete a webhook.", "DELETE", _WEBHOOK),
)

_UNUSABLE = (ValueError, AttributeError, OSError, cfg.Error)
"""What oslo.policy raises for a file that is no YAML, no mapping, or cannot be read."""

_Question = tuple[str, str | None, str, str, frozenset[str]]


def list_rules() -> Sequence[policy.RuleDefault]:
    """Every rule with its default, for oslo.policy's generators."""
    return (
        *_BASE_RULES,
        *_RUNTIME_RULES,
        *_FUNCTION_RULES,
        *_VERSION_RULES,
        *_ALIAS_RULES,
        *_EXECUTION_RULES,
        *_DEAD_LETTER_RULES,
        *_STATS_RULES,
        *_JOB_RULES,
        *_WEBHOOK_RULES,
    )


class Policy:
    """Decides by the rules.  Not thread-safe: it is used from one event loop.

    Everything of a request that a rule may look at is part of what a decision is remembered by, so
    remembering changes no answer; all is forgotten when a policy file changes.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Raises ConfigError for a policy file that cannot be used."""
        self._enforcer = policy.Enforcer(conf)
        self._enforcer.register_defaults(list_rules())
        self._remembered: dict[_Question, bool] = {}
        self._looked_at = self._forgot_at = time.monotonic()
        try:
            self._load()
        except _UNUSABLE as error:
            raise errors.ConfigError(f"[oslo_policy] {self._enforcer.policy_path}: {error}") from error

    def check(self, rule: str, identity: Identity, project_id: str | None = None) -> None:
        """Raise Forbidden where the rule does not let this caller act on that project's resource.

        ``project_id`` is the resource's; None: the operation is about the caller's own project.
        """
        if time.monotonic() - self._looked_at > LOOK_INTERVAL:
            self._look_again()
        question = (rule, project_id, identity.project_id, identity.user_id, identity.roles)
        # PERF: 1 us where the answer is remembered; oslo.policy takes 300 us, since it inspects signatures.
        allowed = self._remembered.get(question)
        if allowed is None:
            allowed = self._decide(rule, identity, project_id)
            if len(self._remembered) < MAX_REMEMBERED:
                self._remembered[question] = allowed
        if not allowed:
            raise errors.Forbidden()

    def _decide(self, rule: str, identity: Identity, project_id: str | None) -> bool:
        if rule not in self._enforcer.registered_rules:
            raise LookupError(f"there is no policy rule {rule!r}")  # else the default rule would answer
        target = {"project_id": identity.project_id if project_id is None else project_id}
        credentials = {
            "project_id": identity.project_id,
            "user_id": identity.user_id,
            "roles": sorted(identity.roles),
        }
        return bool(self._enforcer.enforce(rule, target, credentials))

    def _look_again(self) -> None:
        self._looked_at = time.monotonic()
        before = self._enforcer.rules
        try:
            self._load()
        except _UNUSABLE as error:
            LOG.error("policy files not read again, the rules known so far stay: %s", error)  # noqa: TRY400
        if self._enforcer.rules is not before or self._looked_at - self._forgot_at > FORGET_INTERVAL:
            self._remembered.clear()
            self._forgot_at = self._looked_at

    def _load(self) -> None:
        """Read what changed, or raise and keep every rule as it was, the defaults not excepted."""
        before = self._enforcer.rules
        self._enforcer.use_conf = True
        try:
            self._enforcer.load_rules()
        except _UNUSABLE:
            self._enforcer.rules = before
            raise
        finally:
            self._enforcer.use_conf = False  # so that enforce() touches no file

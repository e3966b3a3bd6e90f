"""Keystone, with projects and users for tests."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import httpx

from tests import environments, packages
from tests.services import base, processes, web

SERVER = pathlib.Path(__file__).parent / "servers" / "keystone_server.py"
ADMIN_PASSWORD = "admin-password"
PROJECTS = ("one", "two", "service")
# user -> (project, role); passwords are NAME-password
USERS = {
    "alice": ("one", "member"),
    "carol": ("one", "reader"),
    "bob": ("two", "member"),
    "swift": ("service", "service"),
    "funcplat": ("service", "service"),
}
CONFIGURATION = """\
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{directory}/keystone.db
[token]
provider = fernet
[cache]
# requests read the database dozens of times without it; a dictionary is right for one process
enabled = true
backend = oslo_cache.dict
[fernet_tokens]
key_repository = {directory}/keys/tokens
[fernet_receipts]
key_repository = {directory}/keys/receipts
[credential]
key_repository = {directory}/keys/credentials
[identity]
# the fewest rounds that bcrypt allows: tests need no slow hashes
password_hash_algorithm = bcrypt
password_hash_rounds = 4
[oslo_policy]
policy_file = {directory}/policy.yaml
"""


class OpenStackService(base.Service):
    """A service out of the environment of Swift and Keystone, which needs no root."""

    def missing(self) -> str | None:
        if not environments.openstack_environment().ready():
            return "it is not installed; tools/test --all installs it, as root"
        return None

    def install(self) -> None:
        try:
            environments.openstack_environment().make()
        except environments.EnvironmentFailure as error:
            raise packages.InstallError(str(error)) from error


class Keystone(OpenStackService):
    """Keystone on SQLite, one process."""

    name = "keystone"
    title = "Keystone"

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        port = processes.free_port()
        url = f"http://127.0.0.1:{port}/v3"
        for name in ("tokens", "receipts", "credentials"):
            (directory / "keys" / name).mkdir(mode=0o700, parents=True)
        configuration = directory / "keystone.conf"
        configuration.write_text(CONFIGURATION.format(directory=directory))
        (directory / "policy.yaml").write_text("{}\n")
        server = [environments.openstack_environment().python, SERVER, configuration]
        processes.run(directory, "bootstrap", [*server, "bootstrap", url, ADMIN_PASSWORD], deadline=120)
        process = processes.spawn(directory, "keystone", [*server, "serve", port])
        processes.wait_ready(directory, "keystone", process, lambda: web.serves(url), deadline=120)
        return _seed(url)


def issue_token(url: str, user: str, password: str, project: str) -> str:
    """A token of ``user`` for ``project``, both of the default domain."""
    domain = {"domain": {"id": "default"}}
    identity = {"methods": ["password"], "password": {"user": {"name": user, "password": password, **domain}}}
    scope = {"project": {"name": project, **domain}}
    with web.client() as client:
        answer = client.post(f"{url}/auth/tokens", json={"auth": {"identity": identity, "scope": scope}})
    _check(answer)
    return answer.headers["x-subject-token"]


def token_of(settings: base.Settings, user: str) -> str:
    """A token of one of the seeded users for its project."""
    entry = settings["users"][user]
    return issue_token(settings["url"], user, entry["password"], entry["project"])


def register(settings: base.Settings, kind: str, name: str, url: str) -> None:
    """Put a service with its three endpoints in the catalog."""
    with admin_client(settings) as client:
        service = _create(client, "service", {"type": kind, "name": name})
        for interface in ("public", "internal", "admin"):
            endpoint = {"service_id": service, "interface": interface, "region_id": "RegionOne", "url": url}
            _create(client, "endpoint", endpoint)


def admin_client(settings: base.Settings) -> httpx.Client:
    """HTTP as the administrator; paths start after /v3."""
    token = issue_token(settings["url"], "admin", ADMIN_PASSWORD, "admin")
    return web.client(settings["url"], None, **{"X-Auth-Token": token})


def _seed(url: str) -> base.Settings:
    settings: dict[str, Any] = {"url": url, "admin_password": ADMIN_PASSWORD}
    with admin_client(settings) as client:
        roles = {role["name"]: role["id"] for role in _check(client.get("/roles")).json()["roles"]}
        projects = {
            name: _create(client, "project", {"name": name, "domain_id": "default"}) for name in PROJECTS
        }
        users = {}
        for name, (project, role) in USERS.items():
            password = f"{name}-password"
            user = _create(client, "user", {"name": name, "domain_id": "default", "password": password})
            _check(client.put(f"/projects/{projects[project]}/users/{user}/roles/{roles[role]}"))
            users[name] = {"id": user, "password": password, "project": project}
    return {**settings, "projects": projects, "users": users}


def _create(client: httpx.Client, kind: str, body: Mapping[str, str]) -> str:
    created: str = _check(client.post(f"/{kind}s", json={kind: body})).json()[kind]["id"]
    return created


def _check(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        request = answer.request
        raise processes.StartError(f"{request.method} {request.url}: {answer.status_code} {answer.text}")
    return answer

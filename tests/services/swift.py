"""Swift with Keystone in front: proxy, account, container and object server in one process."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping

from tests import environments
from tests.services import base, keystone, processes, web

SERVER = pathlib.Path(__file__).parent / "servers" / "swift_server.py"
KINDS = ("account", "container", "object", "proxy")
FILTERS = {
    "catch_errors": "use = egg:swift#catch_errors",
    "gatekeeper": "use = egg:swift#gatekeeper",
    "healthcheck": "use = egg:swift#healthcheck",
    "cache": "paste.filter_factory = memory_cache:filter_factory",
    "listing_formats": "use = egg:swift#listing_formats",
    "bulk": "use = egg:swift#bulk",
    "tempurl": "use = egg:swift#tempurl",
    "authtoken": """\
use = egg:keystonemiddleware#auth_token
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = {password}
interface = public
delay_auth_decision = True
cache = swift.cache
# tests of revoked tokens want to see the revocation at once
token_cache_time = -1
include_service_catalog = False
http_request_max_retries = 1""",
    "keystoneauth": "use = egg:swift#keystoneauth\noperator_roles = admin, member",
    "copy": "use = egg:swift#copy",
    "container-quotas": "use = egg:swift#container_quotas",
    "slo": "use = egg:swift#slo",
    "dlo": "use = egg:swift#dlo",
}
PROXY = """\
use = egg:swift#proxy
account_autocreate = true
# with one device an error must not take it out of service for a minute
error_suppression_interval = 0
error_suppression_limit = 1000000
recheck_account_existence = 1
recheck_container_existence = 1
"""
COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {directory}
devices = {devices}
mount_check = false
disable_fallocate = true
log_name = {kind}
"""


class Swift(keystone.OpenStackService):
    """One replica on one directory."""

    name = "swift"
    title = "Swift"

    @property
    def requires(self) -> tuple[str, ...]:
        return ("keystone",)

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        identity = running["keystone"]
        devices = base.data_directory(directory).resolve()
        (devices / "d1").mkdir()
        ports = {kind: processes.free_port() for kind in KINDS}
        _configure(directory, devices, ports, identity)
        servers = [f"{kind}:{ports[kind]}" for kind in KINDS]
        argv = [environments.openstack_environment().python, SERVER, directory, *servers]
        process = processes.spawn(directory, "swift", argv)
        for kind in KINDS:
            health = f"http://127.0.0.1:{ports[kind]}/healthcheck"
            processes.wait_ready(directory, "swift", process, lambda url=health: web.serves(url))
        url = f"http://127.0.0.1:{ports['proxy']}"
        keystone.register(identity, "object-store", "swift", f"{url}/v1/AUTH_%(tenant_id)s")
        return {"url": url, "auth_url": identity["url"]}


def _configure(
    directory: pathlib.Path, devices: pathlib.Path, ports: Mapping[str, int], identity: base.Settings
) -> None:
    constraints = "" if _keeps_large_attributes(devices) else "max_meta_overall_size = 2048\n"
    (directory / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = test\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
        f"[swift-constraints]\n{constraints}"
    )
    for kind in KINDS:
        text = COMMON.format(port=ports[kind], directory=directory, devices=devices, kind=kind)
        text += _proxy_pipeline(identity) if kind == "proxy" else _storage_pipeline(kind, directory)
        (directory / f"{kind}.conf").write_text(text)


def _keeps_large_attributes(directory: pathlib.Path) -> bool:
    """Whether a file may have 8 KiB of extended attributes: tmpfs and XFS yes, ext4 4 KiB at most."""
    with tempfile.NamedTemporaryFile(dir=directory) as probe:
        try:
            os.setxattr(probe.fileno(), "user.swift.metadata", b"x" * 8192)
        except OSError:
            return False
    return True


def _storage_pipeline(kind: str, directory: pathlib.Path) -> str:
    return (
        f"[pipeline:main]\npipeline = healthcheck {kind}-server\n"
        "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
        f"[app:{kind}-server]\nuse = egg:swift#{kind}\nrecon_cache_path = {directory}\n"
    )


def _proxy_pipeline(identity: base.Settings) -> str:
    values = {"keystone": identity["url"], "password": identity["users"]["swift"]["password"]}
    filters = "".join(f"[filter:{name}]\n{text.format(**values)}\n" for name, text in FILTERS.items())
    pipeline = f"[pipeline:main]\npipeline = {' '.join(FILTERS)} proxy-server\n"
    return f"{pipeline}{filters}[app:proxy-server]\n{PROXY}"

"""Keystone in one process.

    keystone_server.py CONFIGURATION bootstrap URL ADMIN_PASSWORD
    keystone_server.py CONFIGURATION serve PORT

Run by the interpreter of the environment that Keystone is installed in.
"""

from __future__ import annotations

import os
import pathlib
import sys
import warnings

THREADS = 4
CREDENTIAL_KEYS = 3


def bootstrap(configuration: str, url: str, password: str) -> None:
    """What four keystone-manage commands do, in the time of one: schema, two sets of keys, first user."""
    import keystone.conf
    from keystone.cmd import bootstrap as first
    from keystone.common import fernet_utils
    from keystone.common.sql import upgrades
    from keystone.server import configure

    configure(config_files=[configuration])
    upgrades.offline_sync_database_to_version()
    for section in ("fernet_tokens", "fernet_receipts", "credential"):
        options = keystone.conf.CONF[section]
        count = CREDENTIAL_KEYS if section == "credential" else options.max_active_keys
        keys = fernet_utils.FernetUtils(options.key_repository, count, section)
        keys.initialize_key_repository(os.getuid(), os.getgid())
    task = first.Bootstrapper()
    task.admin_username, task.admin_password, task.admin_role_name = "admin", password, "admin"
    task.project_name = "admin"
    task.service_name, task.service_id, task.region_id = "keystone", None, "RegionOne"
    task.public_url = task.internal_url = task.admin_url = url
    task.immutable_roles = True
    task.bootstrap()


def serve(port: str) -> None:
    import waitress
    from keystone.wsgi.api import application

    waitress.serve(application, listen=f"127.0.0.1:{port}", threads=THREADS, connection_limit=1000)


def main() -> None:
    configuration, command, *arguments = sys.argv[1:]
    # Keystone's application reads sys.argv as options of its own
    del sys.argv[1:]
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = configuration
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(pathlib.Path(configuration).parent)
    warnings.simplefilter("ignore")
    if command == "bootstrap":
        bootstrap(configuration, *arguments)
    else:
        serve(*arguments)


main()

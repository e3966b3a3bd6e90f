"""A container registry (Docker Distribution)."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

from tests.services import base, processes, web


class Registry(base.Service):
    """An open registry without TLS on the loopback address, where Docker accepts that too."""

    name = "registry"
    title = "the container registry"
    packages = ("docker-registry", "openssl")

    def missing(self) -> str | None:
        return self.lacking("docker-registry", "openssl")

    def start(self, directory: pathlib.Path, running: Mapping[str, base.Settings]) -> base.Settings:
        data, port = base.data_directory(directory), processes.free_port()
        configuration = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(data.resolve())},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": f"127.0.0.1:{port}", "secret": "not a secret"},
        }
        path = directory / "config.yml"
        path.write_text(json.dumps(configuration))  # YAML contains JSON
        argv = [base.program("docker-registry"), "serve", path]
        environment = {"OTEL_TRACES_EXPORTER": "none"}
        process = processes.spawn(directory, "registry", argv, env=environment)
        url = f"http://127.0.0.1:{port}"
        processes.wait_ready(directory, "registry", process, lambda: web.serves(f"{url}/v2/"))
        return {"url": url, "host": f"127.0.0.1:{port}"}

"""``funcplat status``: is there a server, and does it work?"""

from __future__ import annotations

import argparse

from funcplat.cmd import base, failures


class Status(base.Show):
    """Show whether the server answers and is ready to work; exit code 3 where it is not."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """As for every table, but with an exit code that tells."""
        self._ready = False
        super().run(parsed_args)
        return 0 if self._ready else failures.PlatformFailure.exit_code

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        """Raises ConnectionFailure where none answers."""
        discovered = self.client.get("/").json()
        versions = ", ".join(
            f"{version['id']} ({version['status']})" for version in discovered.get("versions", [])
        )
        healthy = self._check("/healthz")
        ready = self._check("/readyz")
        self._ready = healthy == ready == "ok"
        names = ("endpoint", "api_versions", "healthy", "ready")
        return names, (self.client.endpoint, versions, healthy, ready)

    def _check(self, path: str) -> str:
        try:
            self.client.get(path)
        except failures.ConnectionFailure:
            raise
        except failures.Failure as failure:
            return f"no: {failure}"
        return "ok"

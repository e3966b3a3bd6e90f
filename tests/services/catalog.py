"""The services there are, in an order in which they can start."""

from __future__ import annotations

from tests.services import base, dockerd, keystone, kubernetes, mariadb, postgresql, registry, swift


def services() -> dict[str, base.Service]:
    """Every service by its name; one comes after those that it requires."""
    every: list[base.Service] = [
        postgresql.PostgreSQL(),
        mariadb.MariaDB(),
        registry.Registry(),
        keystone.Keystone(),
        swift.Swift(),
        dockerd.Dockerd(),
        kubernetes.Kubernetes(),
    ]
    return {service.name: service for service in every}

"""The options of the Docker driver, group ``[orchestrator_docker]``, and what they come to."""

from __future__ import annotations

import dataclasses
import fnmatch
import ipaddress
import re
import socket
import urllib.parse
from collections.abc import Sequence

from oslo_config import cfg

from funcplat import errors

MIB = 1 << 20
NO_NETWORK = "none"
_USER = re.compile(r"[0-9]+:[0-9]+")

OPTS: Sequence[cfg.Opt] = (
    cfg.StrOpt(
        "url",
        default="unix:///var/run/docker.sock",
        help="Where the Docker Engine listens: a socket of this machine, or tcp://host:port, for which "
        "tls_ca, tls_cert and tls_key should be set. Example: tcp://docker.example.org:2376",
    ),
    cfg.StrOpt(
        "tls_ca",
        help="File with the certificate of the authority that the Engine's certificate is checked by, PEM. "
        "With it a tcp:// URL is spoken to with TLS. Example: /etc/funcplat/docker/ca.pem",
    ),
    cfg.StrOpt("tls_cert", help="File with the certificate that the Engine knows this platform by, PEM."),
    cfg.StrOpt("tls_key", help="File with the private key of tls_cert, PEM."),
    cfg.StrOpt(
        "transport",
        choices=["socket", "tcp"],
        help="How the platform reaches workers. socket: a Unix socket in a directory that container and "
        "platform share, so that containers need no network. tcp: a published port, for an Engine on another "
        "machine. Unset: socket where url is a socket, else tcp.",
    ),
    cfg.StrOpt(
        "worker_host",
        help="With transport = tcp: the name or address of the Engine's machine under which published ports "
        "are reached. Unset: the host of url, or 127.0.0.1.",
    ),
    cfg.StrOpt(
        "publish_address",
        help="With transport = tcp: the IP address of the Engine's machine on which ports of workers are "
        "published. Whoever reaches it can talk to blank workers, so keep it to a network of your own. "
        "Unset: that of worker_host.",
    ),
    cfg.ListOpt(
        "images",
        default=[],
        help="Other images for the names that runtimes have, such as those of Qinling: pattern=image, the "
        "first match counts. No match: the image of that name. Images of functions are not looked up here. "
        "Example: ``openstackqinling/python*=funcplat/python:3.12, "
        "openstackqinling/node*=funcplat/nodejs:22``",
    ),
    cfg.ListOpt(
        "networks",
        default=[],
        help="Which Docker network the functions of a runtime are in, by the runtime's image name: "
        "pattern=network, the first match counts. No match: none, with transport = tcp a network "
        "that leads nowhere. A function in a network reaches whatever is reachable from there. "
        "Example: ``*crawler*=egress``",
    ),
    cfg.StrOpt(
        "auth_file",
        help="File of the form of Docker's config.json with the credentials that images are pulled with; "
        "give [storage_registry] auth_file the same one, so that what is resolved can be pulled. Read anew "
        "for each pull. Unset: what docker login keeps for the platform's user, if there is anything: "
        "$DOCKER_CONFIG/config.json or ~/.docker/config.json. Example: /etc/funcplat/registry-auth.json",
    ),
    cfg.StrOpt(
        "user",
        default="64010:64010",
        help="User and group id that workers and functions have, as numbers. Nothing else on the Engine's "
        "machine should have them, and this platform must not.",
    ),
    cfg.StrOpt(
        "run_dir",
        help="With transport = socket: directory of workers' sockets and code, which the Engine must see "
        "under the same path. Unset: below state_dir. A socket's path has at most 107 bytes, of which 46 are "
        "used up below this directory. Example: /run/funcplat",
    ),
    cfg.IntOpt(
        "pool_size",
        default=2,
        min=0,
        max=100,
        help="Workers without a function that are kept ready for each runtime, in containers that run. Each "
        "takes about 15 MiB and makes a cold start some 300 ms faster.",
    ),
    cfg.IntOpt(
        "pool_disk",
        default=16 * MIB,
        min=MIB,
        help="Scratch space, in bytes, of the containers that are made ready before the first function of a "
        "runtime is called. It is fixed when a container is made: half of the memory that most functions "
        "have is what fits. Later ones are made for the functions that were called.",
    ),
    cfg.FloatOpt(
        "pool_idle",
        default=3600.0,
        min=1.0,
        help="Seconds after which containers are no longer kept ready for a runtime that nobody calls.",
    ),
    cfg.StrOpt(
        "isolation",
        choices=["required", "preferred"],
        help="required: refuse to start where the Engine does not limit memory, cpu and processes, or runs "
        "containers without its seccomp filter. preferred: do what it allows, and say what is missing. "
        "Unset: required when the API listens beyond loopback, else preferred.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The options, checked and completed."""

    url: str
    tls: tuple[str, str, str] | None  # CA, certificate, key; the latter two may be empty
    by_socket: bool
    worker_host: str
    publish_address: str  # empty: that of worker_host
    images: tuple[tuple[str, str], ...]  # pattern of a runtime's image, image
    networks: tuple[tuple[str, str], ...]  # pattern, network
    auth_file: str  # empty: that of docker login
    user: str
    pool_size: int
    pool_disk: int  # bytes
    pool_idle: float  # seconds

    def image(self, name: str) -> str:
        """The image that runs for a runtime whose image has this name."""
        return _first(self.images, name, name)

    def network(self, image: str, otherwise: str) -> str:
        """The Docker network that an image's functions are in."""
        return _first(self.networks, image, otherwise)

    def published_on(self) -> str:
        """The address that ports are published on.  Raises ConfigError where worker_host has none."""
        return self.publish_address or _address(self.worker_host)


def settings(options: cfg.ConfigOpts.GroupAttr) -> Settings:
    """What the options come to.  Raises ConfigError."""
    by_socket = (options.transport or ("socket" if options.url.startswith("unix:") else "tcp")) == "socket"
    if not _USER.fullmatch(options.user) or options.user.startswith("0:"):
        raise errors.ConfigError(
            f"[orchestrator_docker] user = {options.user}: give two numbers, such as 64010:64010, not root's"
        )
    worker_host = options.worker_host or urllib.parse.urlsplit(options.url).hostname or "127.0.0.1"
    return Settings(
        url=options.url,
        tls=_tls(options),
        by_socket=by_socket,
        worker_host=worker_host,
        publish_address=options.publish_address or "",
        images=tuple(_entry("images", entry, "image") for entry in options.images),
        networks=tuple(_entry("networks", entry, "network") for entry in options.networks),
        auth_file=options.auth_file or "",
        user=options.user,
        pool_size=options.pool_size,
        pool_disk=options.pool_disk,
        pool_idle=options.pool_idle,
    )


def _tls(options: cfg.ConfigOpts.GroupAttr) -> tuple[str, str, str] | None:
    if bool(options.tls_cert) != bool(options.tls_key):
        raise errors.ConfigError("[orchestrator_docker] needs both tls_cert and tls_key, or neither")
    if not options.tls_ca:
        if options.tls_cert:
            raise errors.ConfigError("[orchestrator_docker] tls_cert needs tls_ca, to know the Engine by")
        return None
    return options.tls_ca, options.tls_cert or "", options.tls_key or ""


def _entry(option: str, entry: str, noun: str) -> tuple[str, str]:
    pattern, _, value = entry.rpartition("=")
    if not pattern.strip() or not value.strip():
        raise errors.ConfigError(f"[orchestrator_docker] {option}: {entry!r} is not pattern={noun}")
    return pattern.strip(), value.strip()


def _first(entries: tuple[tuple[str, str], ...], name: str, otherwise: str) -> str:
    """The value of the first pattern that a name matches."""
    return next((value for pattern, value in entries if fnmatch.fnmatchcase(name, pattern)), otherwise)


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise errors.ConfigError(
            f"[orchestrator_docker] worker_host = {host} has no address ({error}); set publish_address"
        ) from error

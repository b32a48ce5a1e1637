"""The servers of the comparison. A new peer is one small class: its package, its configuration, its command."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
from abc import ABC, abstractmethod

import tools
from rig import Process, Rig, accepts, free_port


class Peer(ABC):
    """One server, started once for a run, with a plain and a TLS port of its own.

    A subclass says what it needs and writes its configuration into `self.folder`; ports, start, readiness and end
    are done here.
    """

    name: str
    packages: dict[str, str] = {}  # program -> Debian package
    protocols: frozenset[str] = frozenset({"plain", "tls", "h2"})
    caches: bool = True  # whether there is an origin behind it that a hit must not reach

    def __init__(self, rig: Rig):
        self.rig = rig
        self.folder = rig.folder / self.name
        self.folder.mkdir()
        self.plain_port, self.tls_port = free_port(), free_port()
        self._process: Process | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Writes what the server reads at its start, and returns the command that runs it in the foreground."""

    @abstractmethod
    def version(self) -> str:
        """Name and version in a few words, for the report."""

    def is_ready(self) -> bool:
        ports = [self.plain_port, self.tls_port] if "tls" in self.protocols else [self.plain_port]
        return all(accepts(port) for port in ports)

    def start(self) -> None:
        self._process = Process(self.name, self.command(), self.rig.server_core, self.folder)
        self._process.wait_until(self.is_ready)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def pids(self) -> set[int]:
        assert self._process is not None, "only a started server has processes"
        return self._process.pids()

    def output(self) -> str:
        """What the server has written so far."""
        return self._process.log.read_text(errors="replace") if self._process is not None else ""

    def port(self, protocol: str) -> int:
        return self.plain_port if protocol == "plain" else self.tls_port

    def url(self, protocol: str, path: str) -> str:
        scheme = "http" if protocol == "plain" else "https"
        return f"{scheme}://127.0.0.1:{self.port(protocol)}{path}"


class Floor(Peer):
    """A bare epoll loop of our own: what the kernel alone costs."""

    name = "floor"
    protocols = frozenset({"plain"})
    caches = False

    def command(self) -> list[str]:
        return [str(tools.floor()), "--port", str(self.plain_port), "--dir", str(self.rig.objects), "--role", "floor"]

    def version(self) -> str:
        return "bare epoll loop (benches/peers/floor)"


class Larder(Peer):
    name = "larder"

    def command(self) -> list[str]:
        file = self.folder / "larder.toml"
        file.write_text(f"""\
[node]
workers = 1
drain_timeout = "1s"
[[listen]]
address = "127.0.0.1:{self.plain_port}"
[[listen]]
address = "127.0.0.1:{self.tls_port}"
tls = true
[[certificate]]
cert = "{self.rig.certificate}"
key = "{self.rig.key}"
[admin]
address = "127.0.0.1:0"
[store]
path = "{self.folder / 'store'}"
memory = "512MiB"
disk = "0"
[[site]]
name = "bench"
hosts = ["*"]
origin = "bench"
[[origin]]
name = "bench"
servers = [{{ url = "http://127.0.0.1:{self.rig.origin_port}" }}]
""")
        return [str(tools.larder()), "serve", "--config", str(file)]

    def is_ready(self) -> bool:
        return re.search(r"\bready\b", self.output()) is not None and super().is_ready()

    def version(self) -> str:
        return _first_line([str(tools.larder()), "--version"])


class Nginx(Peer):
    """proxy_cache with an open file cache; bodies leave by sendfile, in full segments with their heads."""

    name = "nginx"
    packages = {"nginx": "nginx"}
    bodies = "sendfile on; tcp_nopush on;"

    def command(self) -> list[str]:
        file = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # the cache lies in a folder of the user who measures
        file.write_text(f"""\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {self.folder}/nginx.pid;
error_log {self.folder}/error.log warn;
events {{ use epoll; worker_connections 16384; multi_accept on; accept_mutex off; }}
http {{
    access_log off;
    types {{ }}
    default_type application/octet-stream;
    {self.bodies}
    tcp_nodelay on;
    output_buffers 4 64k;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max=10000 inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/temp;
    proxy_cache_path {self.folder}/cache levels=1:2 keys_zone=bench:16m inactive=1d max_size=1g use_temp_path=off;
    ssl_certificate {self.rig.certificate};
    ssl_certificate_key {self.rig.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
    ssl_buffer_size 64k;
    http2_chunk_size 16k;
    http2_max_concurrent_streams 128;
    upstream origin {{ server 127.0.0.1:{self.rig.origin_port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{self.plain_port} backlog=4096;
        listen 127.0.0.1:{self.tls_port} ssl http2 backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache bench;
            proxy_cache_lock on;
        }}
    }}
}}
""")
        return [_program("nginx"), "-p", str(self.folder), "-c", str(file)]

    def version(self) -> str:
        done = subprocess.run([_program("nginx"), "-v"], capture_output=True, text=True)
        return done.stderr.strip().removeprefix("nginx version: ")


class NginxNoCork(Nginx):
    """Without tcp_nopush: dearer for small bodies, but on loopback none waits for a delayed ACK."""

    name = "nginx-nocork"
    protocols = frozenset({"plain"})  # over TLS there is no sendfile, so that it would be the same as nginx
    bodies = "sendfile on; tcp_nopush off;"


class NginxCopy(Nginx):
    """Bodies are read and written with their head: best where a copy is cheaper than sendfile."""

    name = "nginx-copy"
    protocols = frozenset({"plain"})
    bodies = "sendfile off;"


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (Larder, Nginx, NginxNoCork, NginxCopy, Floor)}


def select(names: str) -> list[type[Peer]]:
    chosen = []
    for name in names.split(","):
        if name.strip() not in PEERS:
            raise ValueError(f"no peer named {name!r}; there are: {', '.join(PEERS)}")
        if PEERS[name.strip()] not in chosen:
            chosen.append(PEERS[name.strip()])
    return chosen


def _program(name: str) -> str:
    path = tools.find(name)
    if path is None:
        raise tools.Missing(f"{name} is not installed")
    return str(pathlib.Path(path))


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().partition("\n")[0]

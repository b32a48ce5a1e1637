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
            proxy_force_ranges on;
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


class Varnish(Peer):
    """Everything in memory. It does no TLS."""

    name = "varnish"
    packages = {"varnishd": "varnish"}
    protocols = frozenset({"plain"})

    def command(self) -> list[str]:
        file = self.folder / "default.vcl"
        file.write_text(f"""\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{self.rig.origin_port}"; }}
""")
        place = ["-n", str(self.folder / "work"), "-f", str(file), "-a", f"127.0.0.1:{self.plain_port}"]
        settings = self.threads() | {"listen_depth": 4096, "timeout_idle": 3600}
        given = [word for name, value in settings.items() for word in ("-p", f"{name}={value}")]
        return [_program("varnishd"), "-F", *place, "-s", "malloc,512M", *given, "-T", "none"]

    def threads(self) -> dict[str, int]:
        """One pool, as for one core, whose threads are there before they are needed."""
        return {"thread_pools": 1, "thread_pool_min": 200}

    def version(self) -> str:
        return _first_line([_program("varnishd"), "-V"])


class Haproxy(Peer):
    """Its cache in memory, one thread."""

    name = "haproxy"
    packages = {"haproxy": "haproxy"}

    def command(self) -> list[str]:
        pair = self.folder / "pair.pem"
        pair.write_text(self.rig.certificate.read_text() + self.rig.key.read_text())
        file = self.folder / "haproxy.cfg"
        file.write_text(f"""\
global
    nbthread 1
    maxconn 9000
    tune.maxpollevents 512
cache bench
    total-max-size 512
    max-object-size 16777216
    max-age 86400
defaults
    mode http
    timeout client 1h
    timeout server 1m
    timeout connect 5s
    timeout http-keep-alive 1h
frontend bench
    bind 127.0.0.1:{self.plain_port} backlog 4096
    bind 127.0.0.1:{self.tls_port} ssl crt {pair} alpn h2,http/1.1 backlog 4096
    http-request cache-use bench
    http-response cache-store bench
    default_backend origin
backend origin
    server origin 127.0.0.1:{self.rig.origin_port}
""")
        return [_program("haproxy"), "-db", "-f", str(file)]

    def version(self) -> str:
        return _first_line([_program("haproxy"), "-v"])


class TrafficServer(Peer):
    """Its memory cache before a store in the folder of the run, one thread for connections."""

    name = "trafficserver"
    packages = {"traffic_server": "trafficserver"}

    def command(self) -> list[str]:
        config, cache = self.folder / "etc", self.folder / "cache"
        for folder in (config, cache, self.folder / "run", self.folder / "log"):
            folder.mkdir()
            folder.chmod(0o777)  # it never serves as root
        settings = {
            "admin.user_id STRING": "nobody" if os.geteuid() == 0 else f"#{os.geteuid()}",
            "http.server_ports STRING": f"{self.plain_port}:ipv4 {self.tls_port}:ipv4:ssl",
            "exec_thread.autoconfig INT": 0,
            "exec_thread.limit INT": 1,
            "accept_threads INT": 0,
            "task_threads INT": 1,
            "cache.ram_cache.size INT": 536870912,
            "cache.ram_cache_cutoff INT": 16777216,
            "cache.threads_per_disk INT": 1,
            "http.cache.required_headers INT": 0,
            "http.keep_alive_no_activity_timeout_in INT": 3600,
            "http.server_session_sharing.pool STRING": "thread",
            "log.logging_enabled INT": 0,
            "url_remap.remap_required INT": 1,
            "ssl.server.cert.path STRING": str(self.folder),
            "ssl.server.private_key.path STRING": str(self.folder),
            "net.connections_throttle INT": 30000,
            "exec_thread.affinity INT": 0,
        }
        lines = [f"CONFIG proxy.config.{name} {value}\n" for name, value in settings.items()]
        (config / "records.config").write_text("".join(lines))
        (config / "remap.config").write_text(f"map / http://127.0.0.1:{self.rig.origin_port}/\n")
        (config / "storage.config").write_text(f"{cache} 256M\n")
        certificate = f"dest_ip=* ssl_cert_name={self.rig.certificate} ssl_key_name={self.rig.key}\n"
        (config / "ssl_multicert.config").write_text(certificate)
        (config / "ip_allow.yaml").write_text(
            "ip_allow:\n  - {apply: in, ip_addrs: 0/0, action: allow, methods: ALL}\n"
            "  - {apply: out, ip_addrs: 0/0, action: allow, methods: ALL}\n"
        )
        layout = {
            "prefix": "/usr", "exec_prefix": "/usr", "bindir": "/usr/bin", "sbindir": "/usr/sbin",
            "includedir": "/usr/include", "libdir": "/usr/lib/trafficserver",
            "libexecdir": "/usr/lib/trafficserver/modules", "sysconfdir": config, "datadir": cache,
            "cachedir": cache, "localstatedir": self.folder, "runtimedir": self.folder / "run",
            "logdir": self.folder / "log",
        }
        runroot = self.folder / "runroot.yaml"
        runroot.write_text("".join(f"{name}: {path}\n" for name, path in layout.items()))
        return [_program("traffic_server"), f"--run-root={runroot}"]

    def version(self) -> str:
        return _first_line([_program("traffic_server"), "--version"])


PEERS: dict[str, type[Peer]] = {
    kind.name: kind for kind in (Larder, Nginx, NginxNoCork, NginxCopy, Haproxy, Varnish, TrafficServer, Floor)
}


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

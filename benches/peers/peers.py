"""The servers of the comparison. A new peer is one small class: its package, its configuration, its command."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request

import tools
from cells import DISK_TIER_MEMORY, MIB, Cell
from peer import Peer, first_line, program
from rig import free_port


class Floor(Peer):
    """A bare epoll loop of our own: what the kernel alone costs."""

    name = "floor"
    settings = "send, with the body behind the head up to 32 KiB, sendfile above; plain only"
    protocols = frozenset({"plain"})
    caches = False

    @classmethod
    def does(cls, cell: Cell) -> bool:
        return super().does(cell) and cell.kind != "miss" and cell.range is None

    def command(self) -> list[str]:
        return [str(tools.floor()), "--port", str(self.plain_port), "--dir", str(self.rig.objects), "--role", "floor"]

    def version(self) -> str:
        return "bare epoll loop (benches/peers/floor)"


class Larder(Peer):
    """Everything in memory; or a disk tier, where the memory tier is as small as it can be."""

    name = "larder"
    settings = "one worker; 512 MiB of memory, or 1 MiB before a disk tier"
    workers = 1
    memory = "512MiB"

    def command(self) -> list[str]:
        memory, disk = (self.memory, "0") if self.tier == "memory" else (DISK_TIER_MEMORY, "2GiB")
        self._metrics_port = free_port()
        file = self.folder / "larder.toml"
        file.write_text(f"""\
[node]
workers = {self.workers}
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
[metrics]
address = "127.0.0.1:{self._metrics_port}"
[limits]
connections_per_client = 50000
idle_timeout = "1h"
[store]
path = "{self.folder / 'store'}"
memory = "{memory}"
disk = "{disk}"
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

    def objects_in_memory(self) -> int | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=5) as answer:
            held = re.search(r'^larder_store_objects\{tier="memory"\} (\S+)', answer.read().decode(), re.MULTILINE)
        return int(float(held[1])) if held else None

    def version(self) -> str:
        return first_line([str(tools.larder()), "--version"])


class Nginx(Peer):
    """proxy_cache with an open file cache; bodies leave by sendfile, in full segments with their heads."""

    name = "nginx"
    settings = "one worker; proxy_cache, open_file_cache, sendfile, tcp_nopush, ssl_buffer_size 64k, no access log"
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
    open_file_cache max=16000 inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/temp;
    proxy_cache_path {self.folder}/cache levels=1:2 keys_zone=bench:64m inactive=1d max_size=2g use_temp_path=off;
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
        return [program("nginx"), "-p", str(self.folder), "-c", str(file)]

    def version(self) -> str:
        done = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True)
        return done.stderr.strip().removeprefix("nginx version: ")


class NginxNoCork(Nginx):
    """Without tcp_nopush: dearer for small bodies, but on loopback none waits for a delayed ACK."""

    name = "nginx-nocork"
    settings = "as nginx, without tcp_nopush; plain only"
    protocols = frozenset({"plain"})  # over TLS there is no sendfile, so that it would be the same as nginx
    bodies = "sendfile on; tcp_nopush off;"


class NginxCopy(Nginx):
    """Bodies are read and written with their head: best where a copy is cheaper than sendfile."""

    name = "nginx-copy"
    settings = "as nginx, without sendfile; plain only"
    protocols = frozenset({"plain"})
    bodies = "sendfile off;"


class Varnish(Peer):
    """Everything in memory, or in a mapped file. It does no TLS."""

    name = "varnish"
    settings = "malloc, or file on disk; one pool of 200 threads; plain only"
    packages = {"varnishd": "varnish"}
    protocols = frozenset({"plain"})

    def command(self) -> list[str]:
        file = self.folder / "default.vcl"
        file.write_text(f"""\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{self.rig.origin_port}"; }}
""")
        place = ["-n", str(self.folder / "work"), "-f", str(file), "-a", f"127.0.0.1:{self.plain_port}"]
        storage = "malloc,512M" if self.tier == "memory" else f"file,{self.folder}/objects,2G"
        settings = self.threads() | {"listen_depth": 4096, "timeout_idle": 3600}
        given = [word for name, value in settings.items() for word in ("-p", f"{name}={value}")]
        return [program("varnishd"), "-F", *place, "-s", storage, *given, "-T", "none"]

    def threads(self) -> dict[str, int]:
        """One pool, as for one core, whose threads are there before they are needed."""
        return {"thread_pools": 1, "thread_pool_min": 200}

    def version(self) -> str:
        return first_line([program("varnishd"), "-V"])


class Haproxy(Peer):
    """Its cache in memory, one thread. It has no other."""

    name = "haproxy"
    settings = "one thread; its cache of 512 MiB; memory only"
    packages = {"haproxy": "haproxy"}
    tiers = frozenset({"memory"})

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
        return [program("haproxy"), "-db", "-f", str(file)]

    def version(self) -> str:
        return first_line([program("haproxy"), "-v"])


class TrafficServer(Peer):
    """Its memory cache before a store in the folder of the run, one thread for connections.

    On disk, the memory cache is as small as Larder's, and the store large enough for what is measured.
    """

    name = "trafficserver"
    settings = "one thread for connections; a memory cache of 512 MiB, or of 1 MiB before the disk; no logging"
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
            "cache.ram_cache.size INT": 512 * MIB if self.tier == "memory" else MIB,
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
        (config / "storage.config").write_text(f"{cache} {'256M' if self.tier == 'memory' else '2G'}\n")
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
        return [program("traffic_server"), f"--run-root={runroot}"]

    def version(self) -> str:
        return first_line([program("traffic_server"), "--version"])


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

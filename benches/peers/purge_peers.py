"""The servers of `purge`, each with its own way to purge a URL and a tag."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import subprocess
import time
from abc import ABC, abstractmethod

import tools
from rig import Process, accepts, free_port

VMODS = "/usr/lib/*/varnish/vmods/libvmod_xkey.so"
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_http_cache_purge_module.so"


class Peer(ABC):
    """One server that caches what the origin at a port has."""

    name: str
    packages: dict[str, str] = {}
    has_tags = True

    def __init__(self, folder: pathlib.Path, disk: pathlib.Path, origin_port: int):
        self.folder, self.disk, self.origin_port = folder / self.name, disk / self.name, origin_port
        self.folder.mkdir()
        self.disk.mkdir()
        self.port = free_port()
        self._process: Process | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Writes its configuration, and returns the command that runs it in the foreground."""

    @abstractmethod
    def version(self) -> str:
        """For the report."""

    @abstractmethod
    def purge_tag(self, tag: str) -> tuple[str, str, dict[str, str]]:
        """Method, target and fields."""

    def purge_url(self, path: str) -> tuple[str, str, dict[str, str]]:
        return "PURGE", path, {}

    def purge(self, client, call: tuple[str, str, dict[str, str]]) -> float:
        """Milliseconds that a purge takes."""
        return client.timed(*call)

    def last_words(self) -> str:
        """What it had to say about its end."""
        return ""

    def is_ready(self) -> bool:
        return accepts(self.port)

    def start(self, core: int) -> None:
        self._process = Process(self.name, self.command(), core, self.folder)
        self._process.wait_until(self.is_ready)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def output(self) -> str:
        return self._process.log.read_text(errors="replace") if self._process is not None else ""


class Larder(Peer):
    """Memory and disk; a purge is on the disk before it is acknowledged."""

    name = "larder"

    def command(self) -> list[str]:
        file = self.folder / "larder.toml"
        file.write_text(f"""\
[node]
workers = 1
drain_timeout = "1s"
[[listen]]
address = "127.0.0.1:{self.port}"
[admin]
address = "127.0.0.1:0"
[store]
path = "{self.disk / 'store'}"
memory = "1GiB"
disk = "4GiB"
[[site]]
name = "bench"
hosts = ["*"]
origin = "bench"
[site.purge]
allow = ["127.0.0.0/8"]
[[origin]]
name = "bench"
servers = [{{ url = "http://127.0.0.1:{self.origin_port}" }}]
""")
        return [str(tools.larder()), "serve", "--config", str(file)]

    def is_ready(self) -> bool:
        return re.search(r"\bready\b", self.output()) is not None

    def purge_tag(self, tag: str) -> tuple[str, str, dict[str, str]]:
        return "PURGEKEYS", "/", {"xkey-purge": tag}

    def version(self) -> str:
        done = subprocess.run([str(tools.larder()), "--version"], capture_output=True, text=True)
        return done.stdout.strip()


class Varnish(Peer):
    """Memory only; tags by the xkey module, which keeps an index of them."""

    name = "varnish-xkey"
    packages = {"varnishd": "varnish", VMODS: "varnish-modules"}
    by_tag = """
        if (req.http.xkey-purge) {
            set req.http.gone = xkey.purge(req.http.xkey-purge);
            return (synth(200, "Purged " + req.http.gone));
        }"""

    def command(self) -> list[str]:
        file = self.folder / "default.vcl"
        file.write_text(f"""\
vcl 4.1;
import xkey;
backend origin {{ .host = "127.0.0.1"; .port = "{self.origin_port}"; }}
acl purgers {{ "127.0.0.1"; }}
sub vcl_recv {{
    if (req.method == "PURGE") {{
        if (client.ip !~ purgers) {{ return (synth(403)); }}{self.by_tag}
        return (purge);
    }}
}}
sub vcl_deliver {{ unset resp.http.xkey; }}
""")
        place = ["-n", str(self.folder / "work"), "-f", str(file), "-a", f"127.0.0.1:{self.port}"]
        return [str(tools.find("varnishd")), "-F", *place, "-s", "malloc,1G", "-p", "thread_pools=1", "-T", "none"]

    def purge_tag(self, tag: str) -> tuple[str, str, dict[str, str]]:
        return "PURGE", "/", {"xkey-purge": tag}

    def version(self) -> str:
        done = subprocess.run([str(tools.find("varnishd")), "-V"], capture_output=True, text=True)
        return (done.stderr or done.stdout).partition("\n")[0].strip()


class VarnishBans(Varnish):
    """Tags by bans: expressions that are compared with each object when it is asked for, and by a thread of its own."""

    name = "varnish-bans"
    by_tag = """
        if (req.http.xkey-purge) {
            ban("obj.http.xkey ~ (^|\\s)" + req.http.xkey-purge + "(\\s|$)");
            return (synth(200, "Banned"));
        }"""


class Nginx(Peer):
    """Files in the page cache; the module knows URLs only. Debian 12's module ends each worker that gets a PURGE: it was
    built for a configuration of the proxy module that its nginx no longer has."""

    name = "nginx"
    packages = {"nginx": "nginx", NGINX_MODULE: "libnginx-mod-http-cache-purge"}
    has_tags = False
    module = f"load_module {NGINX_MODULE};"
    by_url = "proxy_cache_purge PURGE from 127.0.0.1;"

    def command(self) -> list[str]:
        file = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        file.write_text(f"""\
{user}
{self.module}
daemon off;
worker_processes 1;
pid {self.folder}/nginx.pid;
error_log {self.folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/temp;
    proxy_cache_path {self.disk}/cache levels=1:2 keys_zone=bench:64m inactive=1d max_size=4g use_temp_path=off;
    upstream origin {{ server 127.0.0.1:{self.origin_port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache bench;
            proxy_cache_key $uri;
            {self.by_url}
        }}
    }}
}}
""")
        return [str(tools.find("nginx")), "-p", str(self.folder), "-c", str(file)]

    def purge_tag(self, tag: str) -> tuple[str, str, dict[str, str]]:
        raise NotImplementedError(tag)

    def version(self) -> str:
        done = subprocess.run([str(tools.find("nginx")), "-v"], capture_output=True, text=True)
        return done.stderr.strip().removeprefix("nginx version: ")

    def last_words(self) -> str:
        log = self.folder / "error.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return next((line for line in reversed(lines) if "exited on signal" in line), "")


class NginxUnlink(Nginx):
    """Without the module: the file is removed, which is what plugins do that run beside it. No request, and no answer."""

    name = "nginx-unlink"
    packages = {"nginx": "nginx"}
    module = by_url = ""

    def purge(self, client, call: tuple[str, str, dict[str, str]]) -> float:
        started = time.perf_counter()
        name = hashlib.md5(call[1].encode()).hexdigest()
        os.unlink(self.disk / "cache" / name[-1] / name[-3:-1] / name)
        return (time.perf_counter() - started) * 1000


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (Larder, Varnish, VarnishBans, Nginx, NginxUnlink)}

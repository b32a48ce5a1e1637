"""Purges with the `fastly` and `cloudflare` SDKs: by URL, tag and everything, and what happens when they go wrong."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator

import cloudflare
import fastly
from fastly.api import purge_api

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 20
SHOP, BLOG = "shop.example", "blog.example"
ZONE, SERVICE = "023e105f4ecef8ad9ca31a8372d0c353", "SU1Z0isxPaozGVKXdv0eY"
OBJECTS = [(SHOP, "/a"), (SHOP, "/a/b"), (SHOP, "/c?d=1"), (BLOG, "/a")]

CONFIG = """\
[[listen]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[store]
path = "{store}"
memory = "64MiB"
disk = "0"
[[site]]
name = "shop"
hosts = ["{shop}"]
origin = "o"
[site.ids]
cloudflare = "{zone}"
fastly = "{service}"
[[site]]
name = "blog"
hosts = ["{blog}"]
origin = "o"
[[origin]]
name = "o"
servers = [{{ url = "http://127.0.0.1:{origin}" }}]
"""


class Origin(http.server.BaseHTTPRequestHandler):
    """Everything is fresh for an hour, and tagged by its path and with `all`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=3600")
        self.send_header("Surrogate-Key", f"all {self.path}")
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


class Node:
    """A running node, as its clients see it."""

    def __init__(self, log: pathlib.Path, child: subprocess.Popen[bytes], token_file: pathlib.Path):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not re.search(r"\bready\b", log.read_text()):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node is not ready:\n{log.read_text()}")
            time.sleep(0.02)
        self.port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text())[1])
        self.admin = re.search(r"admin on (http://127\.0\.0\.1:\d+)", log.read_text())[1]
        self.token = token_file.read_text().strip()

    def is_hit(self, host: str, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            return "; hit" in answer.getheader("Cache-Status", "")

    def fill(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        for host, path in OBJECTS:
            while not self.is_hit(host, path):
                assert time.monotonic() < deadline, f"{host}{path} is never stored"

    def missing(self) -> list[int]:
        return [index for index, (host, path) in enumerate(OBJECTS) if not self.is_hit(host, path)]

    def cloudflare(self, token: str | None = None) -> cloudflare.Cloudflare:
        return cloudflare.Cloudflare(api_token=token or self.token, base_url=f"{self.admin}/client/v4", max_retries=0)

    def fastly(self, token: str | None = None) -> purge_api.PurgeApi:
        configuration = fastly.Configuration(host=self.admin)
        configuration.api_token = token or self.token
        return purge_api.PurgeApi(fastly.ApiClient(configuration))


def cloudflare_by_url(node: Node) -> None:
    purged = node.cloudflare().cache.purge(zone_id=ZONE, files=[f"https://{SHOP}/a", f"https://{SHOP}/c?d=1"])
    assert purged.id, purged
    assert node.missing() == [0, 2], node.missing()


def cloudflare_by_url_with_headers(node: Node) -> None:
    files = [{"url": f"https://{SHOP}/a", "headers": {"CF-Device-Type": "mobile"}}]
    assert node.cloudflare().cache.purge(zone_id=ZONE, files=files).id
    assert node.missing() == [0], node.missing()


def cloudflare_by_tag(node: Node) -> None:
    assert node.cloudflare().cache.purge(zone_id=ZONE, tags=["/a/b", "none"]).id
    assert node.missing() == [1], node.missing()


def cloudflare_by_host_and_prefix(node: Node) -> None:
    assert node.cloudflare().cache.purge(zone_id=ZONE, prefixes=[f"{SHOP}/a"]).id
    assert node.missing() == [0, 1], node.missing()
    node.fill()
    assert node.cloudflare().cache.purge(zone_id=ZONE, hosts=[SHOP]).id
    assert node.missing() == [0, 1, 2], node.missing()


def cloudflare_everything(node: Node) -> None:
    assert node.cloudflare().cache.purge(zone_id=ZONE, purge_everything=True).id
    assert node.missing() == [0, 1, 2], node.missing()


def cloudflare_key_and_email(node: Node) -> None:
    client = cloudflare.Cloudflare(
        api_key=node.token, api_email="ops@shop.example", base_url=f"{node.admin}/client/v4", max_retries=0
    )
    assert client.cache.purge(zone_id=ZONE, tags=["all"]).id
    assert node.missing() == [0, 1, 2], node.missing()


def cloudflare_errors(node: Node) -> None:
    for kind, code, client, arguments in [
        (cloudflare.AuthenticationError, 10000, node.cloudflare("wrong"), {"zone_id": ZONE, "tags": ["all"]}),
        (cloudflare.NotFoundError, 7003, node.cloudflare(), {"zone_id": "unknown", "tags": ["all"]}),
        (cloudflare.BadRequestError, 1012, node.cloudflare(), {"zone_id": ZONE, "files": ["no url"]}),
        (cloudflare.BadRequestError, 1012, node.cloudflare(), {"zone_id": ZONE, "files": [f"https://{BLOG}/a"]}),
    ]:
        try:
            client.cache.purge(**arguments)
        except kind as error:
            assert error.errors[0].code == code and error.errors[0].message, error.errors
        else:
            raise AssertionError(f"no {kind.__name__} for {arguments}")
    assert node.missing() == [], node.missing()


def fastly_by_url(node: Node) -> None:
    purged = node.fastly().purge_single_url(f"{SHOP}/c?d=1")
    assert purged.status == "ok" and purged.id, purged
    assert node.missing() == [2], node.missing()


def fastly_by_key(node: Node) -> None:
    purged = node.fastly().purge_tag(SERVICE, "/a/b")
    assert purged.status == "ok" and purged.id, purged
    assert node.missing() == [1], node.missing()


def fastly_batch(node: Node) -> None:
    purged = node.fastly().bulk_purge_tag(SERVICE, surrogate_key="/a /a/b")
    assert purged["/a"] and purged["/a/b"], purged
    assert node.missing() == [0, 1], node.missing()
    node.fill()
    keys = fastly.model.purge_response.PurgeResponse(surrogate_keys=["/a/b", "none"])
    assert node.fastly().bulk_purge_tag(SERVICE, purge_response=keys)["none"]
    assert node.missing() == [1], node.missing()


def fastly_softly(node: Node) -> None:
    assert node.fastly().purge_tag(SERVICE, "/a", fastly_soft_purge=1).status == "ok"
    assert node.missing() == [0], node.missing()


def fastly_everything(node: Node) -> None:
    assert node.fastly().purge_all(SERVICE).status == "ok"
    assert node.missing() == [0, 1, 2], node.missing()


def fastly_errors(node: Node) -> None:
    for status, call in [
        (401, lambda: node.fastly("wrong").purge_all(SERVICE)),
        (404, lambda: node.fastly().purge_all("unknown")),
        (400, lambda: node.fastly().bulk_purge_tag(SERVICE)),
        (400, lambda: node.fastly().purge_single_url("nowhere.example/a")),
        (400, lambda: node.fastly().purge_tag(SERVICE, "a", fastly_purge_environment="staging")),
    ]:
        try:
            call()
        except fastly.ApiException as error:
            assert error.status == status and "detail" in error.body, error
        else:
            raise AssertionError(f"no {status}")
    assert node.missing() == [], node.missing()


TESTS = [
    cloudflare_by_url,
    cloudflare_by_url_with_headers,
    cloudflare_by_tag,
    cloudflare_by_host_and_prefix,
    cloudflare_everything,
    cloudflare_key_and_email,
    cloudflare_errors,
    fastly_by_url,
    fastly_by_key,
    fastly_batch,
    fastly_softly,
    fastly_everything,
    fastly_errors,
]


def program() -> pathlib.Path:
    if given := os.environ.get("LARDER_BIN"):
        return pathlib.Path(given).resolve()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [file for file in (target / "debug/larder", target / "release/larder") if file.exists()]
    if not built:
        raise SystemExit(f"sdk: no larder in {target}: run cargo build first, or set LARDER_BIN")
    return max(built, key=lambda file: file.stat().st_mtime)


@contextlib.contextmanager
def running() -> Iterator[Node]:
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="larder-sdk-") as name:
        folder = pathlib.Path(name)
        store, file, log = folder / "store", folder / "larder.toml", folder / "log"
        values = {"store": store, "shop": SHOP, "blog": BLOG, "zone": ZONE, "service": SERVICE}
        file.write_text(CONFIG.format(**values, origin=origin.server_port))
        with log.open("wb") as out:
            child = subprocess.Popen([program(), "serve", "--config", file], stdout=out, stderr=subprocess.STDOUT)
        try:
            yield Node(log, child, store / "admin.token")
        finally:
            child.terminate()
            try:
                child.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
            origin.shutdown()


def main() -> int:
    failed = 0
    with running() as node:
        for test in TESTS:
            try:
                node.fill()
                test(node)
                print(f"ok      {test.__name__}")
            except Exception:  # noqa: BLE001
                failed += 1
                print(f"FAILED  {test.__name__}\n{traceback.format_exc()}")
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

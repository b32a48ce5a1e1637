"""Processes, files and requests that the checks share."""

import atexit
import contextlib
import http.client
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
LARDER = os.environ["LARDER_BIN"]
PATIENCE = 60


def run(*command, **options):
    """Runs a command to its end; a failure tells what it printed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def eventually(what, holds):
    """Asks until it holds, or the patience ends; returns what held."""
    end = time.monotonic() + PATIENCE
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def process(*command, **options):
    """A process that is ended by its own id; its output is kept in a file of its own."""
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, text=True, **options)
        child.read_log = lambda: os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def ask(port, method, path, headers=None, body=None):
    """One request on a connection of its own: status, fields, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


class Origin:
    """A server in a process of its own, which can be killed with all its connections."""

    def __init__(self):
        self.port = free_port()
        self.start()
        atexit.register(self.kill)

    def start(self):
        self.child = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("origin.py"), str(self.port)])
        eventually("the origin answers", self._answers)

    def _answers(self):
        try:
            return ask(self.port, "GET", "/")[0] == 200
        except OSError:
            return False

    def kill(self):
        self.child.kill()
        self.child.wait()


class Node:
    """A running node, its ports and its token."""

    def __init__(self, child, store):
        self.child = child
        self.store = store
        text = child.read_log()
        self.http = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", text)[1])
        self.admin = int(re.search(r"admin on http://127\.0\.0\.1:(\d+)", text)[1])
        metrics = re.search(r"metrics on http://127\.0\.0\.1:(\d+)", text)
        self.metrics = int(metrics[1]) if metrics else None

    def get(self, path, host="shop.example"):
        return ask(self.http, "GET", path, {"Host": host})

    def call(self, method, path, body=None):
        token = (self.store / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return ask(self.admin, method, path, headers, body)


@contextlib.contextmanager
def node(folder, config, wrapper=()):
    """A node with this configuration, ready; `wrapper` is a command that starts it."""
    store = folder / "store"
    file = folder / "larder.toml"
    file.write_text(config + f'\n[store]\npath = "{store}"\nmemory = "32MiB"\ndisk = "64MiB"\n')
    with process(*wrapper, LARDER, "serve", "--config", file) as child:
        ended = lambda: child.poll() is not None
        eventually("the node is ready", lambda: " ready" in child.read_log() or ended())
        assert not ended(), child.read_log()
        yield Node(child, store)


def site(name, host, *ports, more=""):
    """A site and its origin, whose servers are on these local ports."""
    servers = ", ".join(f'{{ url = "http://127.0.0.1:{port}" }}' for port in ports)
    return f"""
[[site]]
name = "{name}"
hosts = ["{host}"]
origin = "{name}"
[[origin]]
name = "{name}"
servers = [{servers}]
{more}
"""

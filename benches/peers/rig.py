"""What all servers of a run share: a temporary folder, objects, a certificate, ports, and processes that end with us."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator

import machine
from cells import OBJECTS, body

START_SECONDS = 20.0
STOP_SECONDS = 8.0
SHM = pathlib.Path("/dev/shm")
SHM_NEEDED_BYTES = 512 * 2**20


@dataclasses.dataclass(frozen=True)
class Rig:
    """The common ground of one run."""

    folder: pathlib.Path
    disk_folder: pathlib.Path
    """Where caches on disk are: a folder on a real one."""
    objects: pathlib.Path
    certificate: pathlib.Path
    key: pathlib.Path
    origin_port: int
    server_core: int
    load_core: int

    def origin_requests(self) -> int:
        """How many requests the origin has answered so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.origin_port}/_requests", timeout=5) as answer:
            return int(answer.read())


class Process:
    """A server that we started: pinned to cores, in a session of its own, ended with its whole tree."""

    def __init__(self, name: str, command: list[str], cores: int | str, folder: pathlib.Path):
        self.name = name
        self.log = folder / "output.log"
        # setpriv: the server ends with us even if we are killed. A session of its own: ^C reaches only us.
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cores), *command]
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                pinned, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def pids(self) -> set[int]:
        return machine.tree(self._child.pid)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Waits for the start to be complete; raises with the end of the log when it isn't."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with code {self._child.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready after {START_SECONDS:.0f} s:\n{self._tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._child.poll() is not None:
            return
        tree = self.pids()
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for pid in tree - {self._child.pid}:
            # Its session is ours alone, so a number that was given anew to another process is left in peace.
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self._child.pid:
                    os.kill(pid, signal.SIGKILL)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def rig(
    floor_binary: pathlib.Path, server_core: int, load_core: int, disk: pathlib.Path | None = None
) -> Iterator[Rig]:
    """Sets up the common ground and takes all of it away again."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench-", dir=_temporary_root()))
    disk_folder = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench-", dir=disk))
    for each in (folder, disk_folder):
        each.chmod(0o755)
    origin = None
    try:
        objects = folder / "objects"
        objects.mkdir()
        for name in OBJECTS:
            (objects / name).write_bytes(body(name))
        certificate, key = _make_certificate(folder)
        port = free_port()
        place = folder / "origin"
        place.mkdir()
        command = [str(floor_binary), "--port", str(port), "--dir", str(objects), "--role", "origin"]
        origin = Process("origin", command, load_core, place)
        origin.wait_until(lambda: accepts(port))
        yield Rig(folder, disk_folder, objects, certificate, key, port, server_core, load_core)
    finally:
        if origin is not None:
            origin.stop()
        for each in (folder, disk_folder):
            shutil.rmtree(each, ignore_errors=True)


def _temporary_root() -> str | None:
    """Memory where there is room, so that no server waits for a disk."""
    if SHM.is_dir() and shutil.disk_usage(SHM).free >= SHM_NEEDED_BYTES:
        return str(SHM)
    return None


def _make_certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    key.chmod(0o644)
    return certificate, key

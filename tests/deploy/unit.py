"""The systemd unit: it is valid, it is tight, and it forbids nothing that the program does."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile

from support import DEPLOY, LARDER, Origin, ask, eventually, node, run, site

UNITS = DEPLOY / "systemd"
# Tenths of systemd-analyze's exposure level.
MOST_EXPOSED = 20


def installed(folder):
    """The units as they are installed, but for the program's path."""
    for unit in UNITS.iterdir():
        (folder / unit.name).write_text(unit.read_text().replace("/usr/bin/larder", LARDER))
    return [folder / unit.name for unit in UNITS.iterdir()]


def units_are_valid():
    with tempfile.TemporaryDirectory() as folder:
        said = run("systemd-analyze", "verify", *installed(pathlib.Path(folder)))
        assert not said.strip(), said


def the_service_is_hardened():
    with tempfile.TemporaryDirectory() as folder:
        installed(pathlib.Path(folder))
        unit = pathlib.Path(folder) / "larder.service"
        said = run("systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit)
        level = float(re.search(r"Overall exposure level for larder.service: ([\d.]+)", said)[1])
        assert level * 10 < MOST_EXPOSED, f"an exposure of {level}"


def the_filter_lets_through_what_the_program_calls():
    """All system calls of a node that serves from origin, memory and disk, purges, rotates its log, reloads, hands over to
    a new process, and of that one until it has drained."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        origin, trace = Origin(), folder / "trace"
        config = '[[listen]]\naddress = "127.0.0.1:0"\n[admin]\naddress = "127.0.0.1:0"\n'
        config += '[metrics]\naddress = "127.0.0.1:0"\n' + f'[access_log]\noutput = "{folder}/access.log"\n'
        with node(folder, config + site("shop", "*", origin.port), ["strace", "-f", "-qq", "-o", trace]) as larder:
            for n in range(20):
                larder.get(f"/{n}"), larder.get(f"/{n}")
            larder.call("POST", "/v1/purges", '{"site": "shop", "all": true}')
            ask(larder.metrics, "GET", "/metrics")
            larder.get("/0")
            said = larder.child.read_log
            first = ready(said(), "false")
            for number, words in ((signal.SIGUSR1, "opened anew"), (signal.SIGHUP, "was reloaded"), (signal.SIGUSR2, "is_successor=true")):
                os.kill(first, number)
                eventually(words, lambda: words in said())
            larder.get("/0")
            eventually("the first process ends", lambda: "drained" in said())
            os.kill(ready(said(), "true"), signal.SIGTERM)
            larder.child.wait(30)
        called = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", trace.read_text(), re.MULTILINE))
    assert {"accept4", "pwrite64", "sendmsg", "recvmsg"} <= called, f"strace saw only {sorted(called)}"
    forbidden = called - allowed()
    assert not forbidden, f"the unit forbids {sorted(forbidden)}"


def ready(said, is_successor):
    return int(re.search(rf"ready.* pid=(\d+) is_successor={is_successor}", said)[1])


def allowed():
    """The unit's SystemCallFilter, spelled out."""
    calls = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", (UNITS / "larder.service").read_text(), re.MULTILINE):
        takes = line.startswith("~")
        for word in line.lstrip("~").split():
            calls = calls - expanded(word) if takes else calls | expanded(word)
    return calls


def expanded(word):
    if not word.startswith("@"):
        return {word}
    said = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True)
    words = re.findall(r"^ {4}([@\w-]+)$", said.stdout, re.MULTILINE)
    return set().union(*(expanded(w) for w in words))


CHECKS = [units_are_valid, the_service_is_hardened, the_filter_lets_through_what_the_program_calls]

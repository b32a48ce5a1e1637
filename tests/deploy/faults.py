"""Faults that are real: each fires its alerts, by a real Prometheus on a clock that is sixty times as fast, and no others."""

import concurrent.futures
import contextlib
import os
import pathlib
import resource
import socket
import subprocess
import tempfile
import threading
import time

from monitoring import started_prometheus, traffic
from support import Origin, ask, eventually, node, run, site

BURNS = {"LarderErrorBudgetBurnsFast", "LarderErrorBudgetBurnsSlowly"}


class Visitor(threading.Thread):
    """Asks a site some thirty times a second: for what is stored or, when told so, always for something new."""

    def __init__(self, larder, host):
        super().__init__(daemon=True)
        self.larder, self.host = larder, host
        self.wants_new = self.is_over = False

    def run(self):
        n = 0
        while not self.is_over:
            n += 1
            # A node that is out of connections, or gone, is part of the play.
            with contextlib.suppress(OSError):
                self.larder.get(f"/new-{n}" if self.wants_new else f"/old-{n % 10}", self.host)
            time.sleep(0.03)


class Stage:
    """The node, what it stands on, and what may be broken about it."""

    def __init__(self, folder):
        self.folder = folder
        self.shop, self.blog, self.spare = Origin(), Origin(), Origin()
        self.make_certificate(90)
        self.config = (
            '[[listen]]\naddress = "127.0.0.1:0"\n[[listen]]\naddress = "127.0.0.1:0"\ntls = true\n'
            '[admin]\naddress = "127.0.0.1:0"\n[metrics]\naddress = "127.0.0.1:0"\n'
            f'[[certificate]]\ncert = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'
            f'[access_log]\noutput = "{folder}/access.log"\n[limits]\nconnections = 1000\n'
        )
        self.config += site("shop", "shop.example", self.shop.port) + site("blog", "blog.example", self.blog.port)
        self.config += site("pair", "pair.example", self.blog.port, self.spare.port)
        self.config += site("narrow", "narrow.example", self.blog.port, more="max_connections = 1\nqueue = 1\n")

    def make_certificate(self, days):
        """Files that are there from one moment to the next, as renewals write them."""
        made = self.folder / "made"
        made.mkdir(exist_ok=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days,
            "-subj", "/CN=shop.example", "-keyout", made / "key.pem", "-out", made / "cert.pem")
        for file in made.iterdir():
            file.rename(self.folder / file.name)

    def reload(self, config, status=200):
        file = self.folder / "larder.toml"
        file.write_text(config)
        answer = self.larder.call("POST", "/v1/reload")
        assert answer[0] == status, answer

    def ask_for_new(self, host, path="/new", times=1):
        """The statuses of so many requests, at once, for what is not stored."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ask = lambda n: self.larder.get(f"{path}-{time.monotonic()}-{n}", host)[0]
            return list(pool.map(ask, range(times)))

    def hold_connections(self, count):
        """Connections that have had an answer, and may be idle for a minute."""
        held = [socket.create_connection(("127.0.0.1", self.larder.http)) for _ in range(count)]
        for connection in held:
            # One beyond the limit is closed already.
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /old-1 HTTP/1.1\r\nHost: blog.example\r\n\r\n")
        return held


# Each makes a fault, yields (what has to fire, what may, what to do until then), and mends it if it can be mended.


@contextlib.contextmanager
def a_file_that_is_no_configuration(stage):
    stage.reload(stage.good + "[nothing]\n", 422)
    yield {"LarderReloadFailed"}, set(), None
    stage.reload(stage.good)


@contextlib.contextmanager
def a_log_on_a_full_disk(stage):
    stage.reload(stage.good.replace(f"{stage.folder}/access.log", "/dev/full"))
    yield {"LarderLogLinesLost"}, set(), None
    stage.reload(stage.good)


def a_certificate_of(days, alerts):
    @contextlib.contextmanager
    def ends_soon(stage):
        stage.make_certificate(days)
        yield alerts, set(), None
        stage.make_certificate(90)

    return ends_soon


@contextlib.contextmanager
def a_key_of_another_certificate(stage):
    key = stage.folder / "key.pem"
    good = key.read_bytes()
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", stage.folder / "other.pem")
    (stage.folder / "other.pem").rename(key)
    yield {"LarderCertificateNotLoaded"}, set(), None
    key.write_bytes(good)


@contextlib.contextmanager
def visitors_of_what_is_new(stage):
    stage.visitor.wants_new = True
    yield {"LarderHitRatioFell"}, set(), None
    stage.visitor.wants_new = False


@contextlib.contextmanager
def one_server_of_two_is_gone(stage):
    stage.spare.kill()
    yield {"LarderOriginServerDown"}, set(), lambda: stage.ask_for_new("pair.example", times=4)
    stage.spare.start()


@contextlib.contextmanager
def an_origin_that_is_too_slow(stage):
    yield {"LarderOriginShedding", "LarderErrorBudgetBurnsFast"}, BURNS, lambda: stage.ask_for_new("narrow.example", "/slow", 8)


@contextlib.contextmanager
def an_origin_that_is_gone(stage):
    stage.shop.kill()
    yield {"LarderOriginDown"}, BURNS, lambda: stage.ask_for_new("shop.example")
    stage.shop.start()


@contextlib.contextmanager
def a_full_disk(stage):
    filler = stage.larder.store / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    yield {"LarderDiskTierDegraded"}, {"LarderPurgeNotDurable"}, lambda: stage.ask_for_new("blog.example", "/large", 4)
    filler.unlink()


@contextlib.contextmanager
def no_more_connections(stage):
    stage.reload(stage.good.replace("connections = 1000", "connections = 8"))
    # The visitor has a place now and then, and leaves it free: more than there is room for, and more again.
    held = stage.hold_connections(12)
    yield {"LarderConnectionsRefused", "LarderSaturated"}, set(), lambda: held.extend(stage.hold_connections(1))
    for connection in held:
        connection.close()
    stage.reload(stage.good)


@contextlib.contextmanager
def next_to_no_descriptors(stage):
    pid = stage.larder.child.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = stage.hold_connections(60)
    # A few are for the visitor, and for the scrape.
    few = len(os.listdir(f"/proc/{pid}/fd")) + 5
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, limits[1]))
    yield {"LarderDescriptorsRunOut"}, set(), None
    for connection in held:
        connection.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def a_node_that_is_gone(stage):
    stage.larder.child.terminate()
    yield {"LarderNodeDown"}, set(), None


# At once what does not touch each other; what takes long beside it.
ROUNDS = [
    [a_certificate_of(10, {"LarderCertificateEnds"}), visitors_of_what_is_new, one_server_of_two_is_gone, a_log_on_a_full_disk,
     a_file_that_is_no_configuration],
    [a_certificate_of(2, {"LarderCertificateEnds", "LarderCertificateEndsSoon"}), an_origin_that_is_too_slow,
     an_origin_that_is_gone, a_full_disk],
    # The last is mended first: a reload takes no key of another certificate either.
    [no_more_connections, a_key_of_another_certificate],
    [next_to_no_descriptors],
    [a_node_that_is_gone],
]
# What has a long memory: errors of an hour, and a disk tier that is tried again after half a minute.
LASTING = BURNS | {"LarderDiskTierDegraded"}


def fire(stage, prometheus, faults, lasting):
    """What fires of some faults. What it takes long to forget of them, and may fire only later, is added to `lasting`."""
    names = lambda: {name for name, _ in prometheus.firing()}
    with contextlib.ExitStack() as broken:
        begun = [broken.enter_context(fault(stage)) for fault in faults]
        due = set().union(*(alerts for alerts, _, _ in begun))
        may = set().union(lasting, *(others for _, others, _ in begun))

        def all_fire():
            for _, _, ask_on in begun:
                if ask_on:
                    ask_on()
            return due <= names()

        try:
            eventually("all fire", all_fire)
        except AssertionError:
            raise AssertionError(f"{due - names()} did not fire") from None
        fired = names()
        lasting |= (due | may) & LASTING
        assert fired <= due | may, f"nobody broke what {fired - due - may} tells of"
    return fired


def is_over(stage, prometheus, lasting):
    # A server is up again when it has answered.
    stage.ask_for_new("shop.example"), stage.ask_for_new("pair.example", times=4)
    return {name for name, _ in prometheus.firing()} <= lasting


@contextlib.contextmanager
def small_file_system(folder):
    """None, with a word, where nothing may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        print("a tmpfs can't be mounted here (only root may): no full disk", flush=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def real_faults_fire_their_alerts_and_no_others():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as open_things:
        folder = pathlib.Path(folder)
        stage = Stage(folder)
        has_disk = open_things.enter_context(small_file_system(folder / "store"))
        stage.larder = open_things.enter_context(node(folder, stage.config))
        stage.good = (folder / "larder.toml").read_text()
        prometheus = open_things.enter_context(started_prometheus(folder, stage.larder.metrics))
        traffic(stage.larder)
        stage.visitor = Visitor(stage.larder, "blog.example")
        stage.visitor.start()
        # Until there are the hours before, with which the hit ratio is compared.
        before = 'avg_over_time(larder:hit_ratio:rate5m{site="blog"}[6m] offset 15s) > 0.9'
        eventually("there is a history", lambda: prometheus.query(before))
        assert not prometheus.firing(), f"without a fault: {prometheus.firing()}"
        lasting = set()
        for faults in ROUNDS:
            faults = [fault for fault in faults if has_disk or fault is not a_full_disk]
            fired = fire(stage, prometheus, faults, lasting)
            if a_node_that_is_gone not in faults:
                eventually(f"{fired - lasting} end", lambda: is_over(stage, prometheus, lasting))
        stage.visitor.is_over = True
        stage.visitor.join()


CHECKS = [real_faults_fire_their_alerts_and_no_others]

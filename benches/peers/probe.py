"""Proof, before and after each measurement, that a server answers right and from its cache."""

from __future__ import annotations

import dataclasses
import functools
import http.client
import socket
import ssl
import subprocess
import time

from cells import Cell
from peer import Peer

HITS_AFTER = 3  # requests within which a cache must have become warm
TIMEOUT_SECONDS = 20


class Wrong(Exception):
    """An answer is not what the cell asks for; the message says how."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer as the client saw it; over HTTP/2 status and fields stay with the client program."""

    status: int | None
    etag: str | None
    body: bytes
    wire_bytes: int


def verify(peer: Peer, cell: Cell, etag: str) -> tuple[int, str]:
    """Fetches until the cache is warm, then checks a hit to the byte.

    Returns the length of the answer on the wire (HTTP/1.1) and the TLS parameters that were agreed on. Of misses it is one
    of those.
    """
    if cell.kind == "miss":
        return _verify_miss(peer, cell, etag), ""
    plain = dataclasses.replace(cell, conditional=False, range=None)  # warm with the object itself, whatever the cell asks for
    for _ in range(HITS_AFTER):
        before = peer.rig.origin_requests()
        _check(_fetch(peer, plain, etag), plain, etag)
        if peer.rig.origin_requests() == before:
            break
    before = peer.rig.origin_requests()
    answer = _fetch(peer, cell, etag)
    _check(answer, cell, etag)
    if peer.caches and peer.rig.origin_requests() != before:
        raise Wrong(f"no hit: request {HITS_AFTER + 1} still reached the origin")
    return answer.wire_bytes, _tls_parameters(peer) if cell.protocol != "plain" else ""


def _verify_miss(peer: Peer, cell: Cell, etag: str) -> int:
    """A new URL asks the origin once, and once only; returns the length of the first answer."""
    path = f"{cell.path}/probe-{time.monotonic_ns()}"
    before = peer.rig.origin_requests()
    answers = [_fetch_h1(peer, cell, etag, path) for _ in range(2)]
    for answer in answers:
        _check(answer, cell, etag)
    if peer.rig.origin_requests() != before + 1:
        raise Wrong(f"a miss and a hit asked the origin {peer.rig.origin_requests() - before} times")
    return answers[0].wire_bytes


def check_origin(cell: Cell, asked: int, answers: float) -> None:
    """Hits must not have reached the origin, misses once each; those that the end of the load cut off may have."""
    least, most = (int(answers), int(answers) + cell.connections) if cell.kind == "miss" else (0, 0)
    if not least <= asked <= most:
        raise Wrong(f"{asked} requests reached the origin during the load, not {least} to {most}")


def origin_etag(port: int, cell: Cell) -> str:
    """The entity tag that the origin gives to the cell's object."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", cell.path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    tag = answer.getheader("ETag")
    if answer.status != 200 or tag is None:
        raise Wrong(f"the origin answers {answer.status} to {cell.path}, or without an ETag")
    return tag


def _check(answer: Answer, cell: Cell, etag: str) -> None:
    if answer.status not in (None, cell.status):
        raise Wrong(f"status {answer.status}, not {cell.status}")
    if answer.etag not in (None, etag):
        raise Wrong(f"ETag {answer.etag}, not {etag}")
    if answer.body != cell.content:
        raise Wrong(f"{len(answer.body)} body bytes, which are not those that were asked for")


def _fetch(peer: Peer, cell: Cell, etag: str) -> Answer:
    if cell.protocol == "h2":
        return _fetch_h2(peer.url(cell.protocol, cell.path), cell.fields(etag))
    return _fetch_h1(peer, cell, etag)


def _fetch_h1(peer: Peer, cell: Cell, etag: str, path: str | None = None) -> Answer:
    """One request on a raw socket, so that the answer's length on the wire is exact."""
    port = peer.port(cell.protocol)
    given = "".join(f"{field}\r\n" for field in cell.fields(etag))
    request = f"GET {path or cell.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{given}\r\n"
    with connect(port, cell.protocol != "plain") as connection:
        return exchange(connection, request.encode())


def exchange(connection: socket.socket, request: bytes) -> Answer:
    """Sends a request and receives its answer, which must have a length."""
    connection.sendall(request)
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, start = bytes(received).partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(status_line.split()[1])
    length = 0 if status == 304 else int(fields.get("content-length", "-1"))
    if length < 0:
        raise Wrong("no Content-Length")
    content = bytearray(start)
    while len(content) < length:
        content += _receive(connection)
    return Answer(status, fields.get("etag"), bytes(content), len(head) + 4 + len(content))


def _fetch_h2(url: str, fields: list[str]) -> Answer:
    given = [word for field in fields for word in ("-H", field.lower())]
    command = ["nghttp", "--no-verify-peer", "-t", str(TIMEOUT_SECONDS), *given, url]
    done = subprocess.run(command, capture_output=True, timeout=2 * TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise Wrong(f"nghttp failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return Answer(None, None, done.stdout, 0)


def connect(port: int, tls: bool, protocol: str = "http/1.1") -> socket.socket:
    """A connection, over TLS for one protocol."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    if not tls:
        return raw
    connection = _client_context(protocol).wrap_socket(raw, server_hostname="localhost")
    agreed = connection.selected_alpn_protocol() or "http/1.1"
    if agreed != protocol:
        raise Wrong(f"{agreed} was agreed on, not {protocol}")
    return connection


@functools.cache
def _client_context(protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a certificate of our own on loopback
    context.set_alpn_protocols([protocol])
    return context


def _tls_parameters(peer: Peer) -> str:
    with connect(peer.tls_port, tls=True) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        cipher = connection.cipher()
        return f"{connection.version()} {cipher[0] if cipher else ''}"


def _receive(connection: socket.socket) -> bytes:
    chunk = connection.recv(1 << 18)
    if not chunk:
        raise Wrong("the connection ended inside an answer")
    return chunk

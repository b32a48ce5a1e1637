"""Proof, before and after each measurement, that a server answers right and from its cache."""

from __future__ import annotations

import dataclasses
import http.client
import socket
import ssl
import subprocess

from cells import Cell
from peers import Peer

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

    Returns the length of the answer on the wire (HTTP/1.1) and the TLS parameters that were agreed on.
    """
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


def _fetch_h1(peer: Peer, cell: Cell, etag: str) -> Answer:
    """One request on a raw socket, so that the answer's length on the wire is exact."""
    port = peer.port(cell.protocol)
    given = "".join(f"{field}\r\n" for field in cell.fields(etag))
    request = f"GET {cell.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{given}\r\n"
    with _connect(port, cell.protocol != "plain") as connection:
        connection.sendall(request.encode())
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


def _connect(port: int, tls: bool) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    return _client_context().wrap_socket(raw, server_hostname="localhost") if tls else raw


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a certificate of our own on loopback
    return context


def _tls_parameters(peer: Peer) -> str:
    with _connect(peer.tls_port, tls=True) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        cipher = connection.cipher()
        return f"{connection.version()} {cipher[0] if cipher else ''}"


def _receive(connection: socket.socket) -> bytes:
    chunk = connection.recv(1 << 18)
    if not chunk:
        raise Wrong("the connection ended inside an answer")
    return chunk

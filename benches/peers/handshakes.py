"""A client of nothing but handshakes: each connection has one, asks for one object, and ends.

    handshakes.py URL SECONDS CLIENTS full|resumed BYTES

Prints JSON: the time of each connection, from connecting to the last byte. Resumed ones use the newest ticket that their client
has been given; a handshake of the other kind is an error.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
import urllib.parse

TIMEOUT_SECONDS = 10
MAX_ERRORS = 5


class Client(threading.Thread):
    """Connects again and again until `end`. The work is OpenSSL's, which runs outside the interpreter's lock."""

    def __init__(self, url: str, end: float, resumes: bool, size: int):
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._end, self._resumes, self._size = end, resumes, size
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # a certificate of our own on loopback
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._session: ssl.SSLSession | None = None
        self.microseconds: list[int] = []
        self.errors: list[str] = []

    def run(self) -> None:
        try:
            if self._resumes:
                self._connect()
            while time.monotonic() < self._end and len(self.errors) < MAX_ERRORS:
                began = time.monotonic_ns()
                resumed = self._connect()
                self.microseconds.append((time.monotonic_ns() - began) // 1000)
                if resumed != self._resumes:
                    self.errors.append(f"a handshake was {'resumed' if resumed else 'full'}")
        except (OSError, ValueError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    def _connect(self) -> bool:
        """Whether the session was resumed."""
        raw = socket.create_connection(self._address, timeout=TIMEOUT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._context.wrap_socket(raw, session=self._session) as connection:
            connection.sendall(self._request)
            received = b""
            while not (end := received.find(b"\r\n\r\n") + 4) >= 4 or len(received) < end + self._size:
                chunk = connection.recv(1 << 16)
                if not chunk:
                    raise ValueError("the connection ended inside an answer")
                received += chunk
            if not received.startswith(b"HTTP/1.1 200 ") or len(received) != end + self._size:
                raise ValueError(f"{len(received) - end} bytes after {received[:32]!r}")
            if self._resumes:
                self._session = connection.session
            return bool(connection.session_reused)


def main() -> None:
    url, seconds, clients, kind, size = sys.argv[1:]
    began = time.monotonic()
    running = [Client(url, began + float(seconds), kind == "resumed", int(size)) for _ in range(int(clients))]
    for client in running:
        client.start()
    for client in running:
        client.join()
    figures = {
        "seconds": time.monotonic() - began,
        "microseconds": [each for client in running for each in client.microseconds],
        "errors": sorted({error for client in running for error in client.errors}),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

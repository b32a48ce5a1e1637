"""An origin for `purge`: each path is fresh for a day and has 20 tags. `GET /_requests` tells how many it answered."""

from __future__ import annotations

import asyncio
import sys

BODY = b"x" * 1024
GROUPS = 100


def tags(path: str) -> str:
    number = int(path.rsplit("/", 1)[-1])
    own = [f"t{index}-{number}" for index in range(17)]
    return " ".join(["all", f"g{number % GROUPS}", f"p{number}", *own])


class Origin(asyncio.Protocol):
    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.unread = transport, b""

    def data_received(self, data: bytes) -> None:
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            head, self.unread = self.unread.split(b"\r\n\r\n", 1)
            self.answer(head.split(b" ", 2)[1].decode())

    def answer(self, path: str) -> None:
        if path == "/_requests":
            fields, body = "", str(Origin.answered).encode()
        else:
            Origin.answered += 1
            fields, body = f"Cache-Control: public, max-age=86400\r\nxkey: {tags(path)}\r\n", BODY
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
        self.transport.write(head.encode() + body)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Origin, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

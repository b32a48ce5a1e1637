"""An origin whose answers can be stored, go stale, and be confirmed: `origin.py PORT`."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(0.5)
        tag = '"v1"'
        fresh = {"/stale": "max-age=1, stale-while-revalidate=600", "/checked": "max-age=1"}
        status = 304 if self.headers.get("If-None-Match") == tag else 200
        body = b"" if status == 304 else b"x" * (300_000 if self.path.startswith("/large") else 1000)
        self.send_response(status)
        self.send_header("Cache-Control", fresh.get(self.path, "max-age=600"))
        self.send_header("ETag", tag)
        if status == 200:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop).serve_forever()

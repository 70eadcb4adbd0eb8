"""A proxy between boto3 and a real S3 server that does to some requests what networks and servers do."""

import base64
import hashlib
import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# What can happen to a request, and to an answer.
FAULTS = (
    "500",
    "503",
    "reset_sending",  # in the middle of the request's body; the server never sees it
    "lost_answer",  # the server did it, and the connection broke before the answer
    "reset",  # in the middle of the answer's body
    "truncated",  # the answer ends early, in good order
    "stall",  # the answer stops half-way and the connection stays open
    "flipped_sending",  # a bit of the request's body is another when it arrives
    "flipped",  # a bit of the answer's body is another when it arrives
)
Plan = Callable[[str, str], str | None]
"""From a request's method and path to a fault, or None."""


def always(fault: str) -> Plan:
    return lambda *_: fault


def first(fault: str, times: int = 1, method: str | None = None) -> Plan:
    """The first `times` requests (with that method) meet the fault."""
    left = iter([fault] * times)
    return lambda seen, _: next(left, None) if method in (None, seen) else None


def at_random(share: float, seed: int, faults: tuple[str, ...] = FAULTS) -> Plan:
    generator, lock = random.Random(seed), threading.Lock()

    def plan(*_: str) -> str | None:
        with lock:
            return generator.choice(faults) if generator.random() < share else None

    return plan


class Proxy(ThreadingHTTPServer):
    """Forwards to `target`; `plan` may be set anew at any time, `requests` are those seen: (method, path, fault)."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target)
        self.plan: Plan = lambda *_: None
        self.requests: list[tuple[str, str, str | None]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that gave up is what is wanted."""


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    server = Proxy(target)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        fault = self.server.plan(self.command, self.path)
        self.server.requests.append((self.command, self.path, fault))
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset_sending":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if fault == "flipped_sending":
            body = flipped(body)
        if fault in ("500", "503") or not self._arrived_whole(body):
            return self._refuse(fault)
        return self._answer(fault, *self._forwarded(body))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

    def _forwarded(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        target = self.server.target
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def _arrived_whole(self, body: bytes) -> bool:
        """S3 holds a body against its Content-MD5; the server behind does not."""
        expected = self.headers.get("Content-MD5")
        return expected is None or expected == base64.b64encode(hashlib.md5(body).digest()).decode()

    def _refuse(self, fault: str | None) -> None:
        status, code = {"500": (500, "InternalError"), "503": (503, "SlowDown")}.get(fault or "", (400, "BadDigest"))
        content = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>-</Message></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer(self, fault: str | None, response: http.client.HTTPResponse, content: bytes) -> None:
        if fault == "lost_answer" or (fault in ("reset", "truncated", "stall") and not content):
            return self._stall() if fault == "stall" else self._reset()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", response.headers.get("Content-Length", str(len(content))))
        self.end_headers()
        return self._send(fault, content)

    def _send(self, fault: str | None, content: bytes) -> None:
        if fault not in ("reset", "truncated", "stall"):
            self.wfile.write(flipped(content) if fault == "flipped" else content)
            return None
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True
        return self._reset() if fault == "reset" else self._stall() if fault == "stall" else None

    def _stall(self) -> None:
        self.close_connection = True
        self.server.over.wait(60)

    def _reset(self) -> None:
        """Closed without a goodbye, as by a machine that went away."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


def flipped(content: bytes, at: float = 0.5) -> bytes:
    """The content with one bit changed, at that share of its length."""
    if not content:
        return content
    place = int(at * len(content))
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

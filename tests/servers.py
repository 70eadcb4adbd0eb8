"""Real servers on this machine for what Nightshift sends."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import requests
from aiosmtpd.controller import Controller
from moto.server import ThreadedMotoServer

from runner.ports import free_port


@contextmanager
def webhook() -> Iterator[tuple[int, list[tuple[str, dict]]]]:
    """A web server: its port and what was posted as (path, JSON); a path with `broken` in it fails."""
    received: list[tuple[str, dict]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(500 if "broken" in self.path else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that lets everybody connect and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@contextmanager
def mail_server(refuses: str = "") -> Iterator[tuple[int, list[Any]]]:
    """A mail server that refuses one address, or none: its port and the envelopes it was sent."""

    class Inbox:
        def __init__(self):
            self.received = []

        async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
            if address == refuses:
                return "550 no such user"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
            self.received.append(envelope)
            return "250 OK"

    inbox = Inbox()
    server = Controller(inbox, hostname="127.0.0.1", port=free_port(8025))
    server.start()
    try:
        yield server.port, inbox.received
    finally:
        server.stop()


class Topic:
    """An SNS topic on a server of this machine, with a queue that keeps what is published."""

    def __init__(self, url: str) -> None:
        self.url = url
        account = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "eu-west-1"}
        self._queues = boto3.client("sqs", endpoint_url=url, **account)
        topics = boto3.client("sns", endpoint_url=url, **account)
        self.arn = topics.create_topic(Name="ops")["TopicArn"]
        self._queue = self._queues.create_queue(QueueName="ops")["QueueUrl"]
        topics.subscribe(TopicArn=self.arn, Protocol="sqs", Endpoint="arn:aws:sqs:eu-west-1:123456789012:ops")

    def received(self) -> list[dict[str, Any]]:
        """What was published since this was last asked."""
        found = self._queues.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in found:  # else it comes back after a while
            self._queues.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in found]


@contextmanager
def topic() -> Iterator[Topic]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)  # its state outlives a server
    try:
        yield Topic(f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def statsd() -> Iterator[tuple[int, list[str]]]:
    """A UDP socket as a StatsD server has it: its port and the lines that came."""
    received: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def listen() -> None:
            while content := server.recv(65536):
                received.extend(content.decode().splitlines())

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], received
        finally:
            server.sendto(b"", server.getsockname())
            thread.join()

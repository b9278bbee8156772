"""A real S3 store (SeaweedFS) for tests, and a proxy before it that fails as networks and busy stores do."""

import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from flows.services import some_ports
from infra import services

KEYS = {"s3_key": "a-key", "s3_secret": "a-very-secret-one"}
FAULTS = ("error", "throttled", "reset", "stalled", "truncated")
THROTTLED = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@contextlib.contextmanager
def running(state: Path) -> Iterator[Any]:
    """An S3 client, of a store in the folder `state` with a bucket `models`; the environment says where it is."""
    (port,) = some_ports(1)
    service = services.s3(state, port, KEYS)
    service.start(state)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            **services.s3_keys(KEYS),
        }.items():
            patch.setenv(name, value)
        try:
            service.wait(state)
            client = boto3.Session().client("s3")
            client.create_bucket(Bucket="models")
            yield client
        finally:
            services.services.stop_all([service])


def upload(client, folder, prefix: str) -> None:
    """Every file of `folder`, to the bucket `models`."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        client.upload_file(str(file), "models", f"{prefix}/{file.relative_to(folder)}")


class Proxy(http.server.ThreadingHTTPServer):
    """Hands requests on to 127.0.0.1:`behind`; `share` of them fail, in a way and order that `seed` decides."""

    daemon_threads = True

    def __init__(self, behind: int, share: float, seed: int, stall: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.share, self.stall, self.rng, self.lock = (
            behind,
            share,
            stall,
            random.Random(seed),
            threading.Lock(),
        )
        self.failed: Counter[str] = Counter()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def fault(self) -> str | None:
        with self.lock:
            kind = self.rng.choice(FAULTS) if self.rng.random() < self.share else None
            self.failed[kind or "none"] += 1
            return kind


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_):
        pass

    def handle_one(self):
        kind, length = self.server.fault(), int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length) if length else None
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif kind == "error":
            self.answer(500, {}, b"")
        elif kind == "throttled":
            self.answer(503, {"Content-Type": "application/xml"}, THROTTLED)
        else:
            self.hand_on(kind, sent)

    do_GET = do_HEAD = do_PUT = do_POST = handle_one

    def hand_on(self, kind, sent):
        there = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        there.request(self.command, self.path, sent, dict(self.headers))
        reply = there.getresponse()
        body = reply.read()
        there.close()
        if kind == "stalled":
            time.sleep(self.server.stall)
        headers = {
            name: value for name, value in reply.getheaders() if name.lower() not in ("connection", "transfer-encoding")
        }
        self.answer(reply.status, headers, body, cut=kind == "truncated")

    def answer(self, status, headers, body, cut=False):
        try:
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.close_connection = True
        except OSError:
            self.close_connection = True

"""A cloud's metadata service on this machine's loopback interface: real HTTP, answers as the test wants them."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT = 20
AWS, GOOGLE, AZURE = ("X-aws-ec2-metadata-token", "a-token"), ("Metadata-Flavor", "Google"), ("Metadata", "true")
ACTION, REBALANCE = "/latest/meta-data/spot/instance-action", "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED, EVENTS, NAME = "/computeMetadata/v1/instance/preempted", "/metadata/scheduledevents", "/metadata/instance/compute/name"


class Service(ThreadingHTTPServer):
    """answers: path -> text; a path that is not there is a 404. needs: a header of every request but PUT."""

    daemon_threads = True

    def __init__(self, needs: tuple[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, str] = {}
        self.needs, self.asked, self.changed, self.etag = needs, [], threading.Event(), "1"
        self.broken = False

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        good = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._say(200 if good else 400, "a-token")

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.asked.append(self.path)
        name, value = self.server.needs
        if self.headers[name] != value:
            self._say(401, "")
        elif self.server.broken:
            self._say(500, "")
        elif path not in self.server.answers:
            self._say(404, "")
        else:
            if "wait_for_change=true" in query and f"last_etag={self.server.etag}" in query:
                self.server.changed.wait(LIMIT)
            self._say(200, self.server.answers[path])

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_cloud(needs: tuple[str, str]) -> Iterator[Service]:
    """needs: AWS, GOOGLE or AZURE: the header without which nothing is answered."""
    service = Service(needs)
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield service
    finally:
        service.changed.set()
        service.shutdown()
        service.server_close()

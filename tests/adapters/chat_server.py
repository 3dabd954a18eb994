"""A real HTTP server on this machine that completes chats as it is told to, and fails as it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = dict[str, Any]


class ChatServer(ThreadingHTTPServer):
    """Keeps all requests, and answers by ``answer``, unless there is a fault left in ``faults``.

    Attributes:
      answer: from the body of a request to the body of an answer, or to ``(state, text)``.
      faults: taken one for each request, from the left; each writes what it likes to the handler.
      bodies: of the requests.
      headers: of the requests.
      started: when each came.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Answer], Any]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.faults: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.bodies: list[Answer] = []
        self.headers: list[dict[str, str]] = []
        self.started: list[float] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            self.server.started.append(time.monotonic())
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is not None:
            fault(self)
            return
        answer = self.server.answer(body)
        state, content = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
        write(self, state, content.encode())

    def log_message(self, *_):
        pass


def write(handler, state: int, content: bytes, *, length: int | None = None, **headers: str) -> None:
    handler.send_response(state)
    handler.send_header("content-length", str(len(content) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def serving(answer: Callable[[Answer], Any]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(*texts: str, first_tokens: dict[str, float] | None = None) -> Answer:
    """The body of an answer; 10 tokens of a question, 2 of each answer."""
    listed = [{"token": token, "logprob": value} for token, value in (first_tokens or {}).items()]
    logprobs = None if first_tokens is None else {"content": [{"token": "x", "logprob": -1, "top_logprobs": listed}]}
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "logprobs": logprobs} for text in texts],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2 * len(texts)},
    }

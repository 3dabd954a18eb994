"""Tests of mtbkd_jax.adapters.endpoint: every fault is got over, the key goes nowhere else, nothing is asked twice."""

import json
import logging
import socket
import time
from threading import Event, Thread, Timer

import pytest
import tenacity

from mtbkd_jax.adapters import Endpoint, EndpointConfig
from mtbkd_jax.adapters.endpoint import RefusedError
from mtbkd_jax.errors import CorruptDataError, InputError, TeacherError
from tests.adapters.chat_server import completion, serving, write

KEY = "sk-secret-0123456789"
BODY = {"model": "m", "messages": []}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def server():
    with serving(lambda body: completion("yes")) as server:
        yield server


def endpoint(server, tmp_path, **options):
    options = {"requests_per_minute": 1e9, "seconds_to_answer": 0.5, "num_attempts": 4} | options
    return Endpoint(EndpointConfig(url=server.url, cache=tmp_path / "cache", **options))


def hanging(handler):
    time.sleep(0.8)


def dripping(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def hanging_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def truncated(handler):
    write(handler, 200, json.dumps(completion("yes")).encode()[:20], length=500)
    handler.close_connection = True


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" " * 100_000)


def state(number, text="busy", **headers):
    return lambda handler: write(handler, number, text.encode(), **headers)


FAULTS = {
    "time-out": hanging,
    "dripping": dripping,
    "hanging up": hanging_up,
    "truncated body": truncated,
    "endless body": endless,
    "429": state(429),
    "500": state(500),
    "503": state(503),
    "no JSON": state(200, "<html>"),
    "truncated JSON": state(200, json.dumps(completion("yes"))[:30]),
    "deep JSON": state(200, "[" * 100_000),
    "a list": state(200, "[1]"),
    "no choices": state(200, '{"choices": []}'),
    "a number for a text": state(200, '{"choices": [{"message": {"content": 3}}]}'),
    "no log probability": state(200, json.dumps(completion("yes", first_tokens={"a": float("nan")}))),
    "more than certain": state(200, json.dumps(completion("yes", first_tokens={"a": -0.1, "b": -0.1}))),
    "a positive log probability": state(200, json.dumps(completion("yes", first_tokens={"a": 3.0}))),
    "negative usage": state(200, json.dumps(completion("yes") | {"usage": {"prompt_tokens": -5}})),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_got_over(server, tmp_path, fault):
    server.faults = [FAULTS[fault]]
    asked = endpoint(server, tmp_path)
    assert asked.complete(BODY).choices[0].text == "yes"
    assert (asked.usage.num_requests, asked.usage.num_answers) == (2, 1)
    assert server.bodies == [BODY, BODY]


def test_a_server_that_never_answers_is_given_up_with_the_reason(server, tmp_path):
    server.faults = [state(500, f"out of \x1b[31mluck, {KEY}")] * 3
    with pytest.raises(TeacherError) as caught:
        endpoint(server, tmp_path, num_attempts=3).complete(BODY)
    message = str(caught.value)
    assert "no answer in 3 attempts, in the last one state 500 (out of  [31mluck, ***). Resume later" in message
    assert len(server.bodies) == 3


def test_a_server_that_is_not_there_is_given_up(server, tmp_path):
    server.server_close()
    with pytest.raises(TeacherError, match="no answer in 2 attempts, in the last one ConnectError"):
        endpoint(server, tmp_path, num_attempts=2).complete(BODY)


def test_the_wish_of_the_server_is_respected(server, tmp_path):
    server.faults = [state(429, retry_after="1")]
    endpoint(server, tmp_path).complete(BODY)
    assert server.started[1] - server.started[0] >= 1.0


def test_a_server_cannot_make_us_wait_for_ever(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(tenacity, "sleep_using_event", lambda event: waits.append)
    server.faults = [state(429, retry_after=wish) for wish in ("9" * 400, "-5", "soon", "1e9")]
    endpoint(server, tmp_path, num_attempts=5).complete(BODY)
    assert waits[0] == 120
    assert max(waits[1:]) <= 4


def test_nobody_waits_for_a_question_that_is_given_up(server, tmp_path, monkeypatch):
    sleep_using_event = tenacity.sleep_using_event

    def given_up_while_asleep(event):
        def sleep(seconds):
            Timer(0.1, event.set).start()
            sleep_using_event(event)(seconds)

        return sleep

    monkeypatch.setattr(tenacity, "sleep_using_event", given_up_while_asleep)
    server.faults = [state(429, retry_after="100")]
    server.answer = lambda body: (500, "")
    start = time.monotonic()
    with pytest.raises(TeacherError, match="no answer in 2 attempts"):
        endpoint(server, tmp_path).complete(BODY, stopping=Event())
    assert time.monotonic() - start < 50


def test_waiting_grows(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(tenacity, "sleep_using_event", lambda event: waits.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    server.faults = [state(500)] * 5
    endpoint(server, tmp_path, num_attempts=6).complete(BODY)
    assert waits == [0.5, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("number", "kind", "action"),
    [
        (400, RefusedError, "Correct what it complains of"),
        (422, RefusedError, "Correct what it complains of"),
        (401, TeacherError, "Check the address, the model's name, and the key in OPENAI_API_KEY"),
        (404, TeacherError, "Check the address"),
        (302, TeacherError, "Check the address"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(server, tmp_path, number, kind, action):
    server.faults = [state(number, f"wrong key {KEY}", location=server.url + "/elsewhere")]
    with pytest.raises(kind, match=rf"state {number} \(wrong key \*\*\*\)\. {action}"):
        endpoint(server, tmp_path).complete(BODY)
    assert len(server.bodies) == 1


def test_nothing_is_asked_twice(server, tmp_path):
    first = endpoint(server, tmp_path).complete(BODY)
    again = endpoint(server, tmp_path)
    assert again.complete(BODY) == first
    assert len(server.bodies) == 1
    assert (again.usage.num_requests, again.usage.num_cached) == (0, 1)
    again.complete(BODY, draw=1)
    again.complete(BODY | {"model": "n"})
    assert len(server.bodies) == 3


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty", "another's"])
def test_a_damaged_answer_is_not_trusted_and_not_replaced(server, tmp_path, damage):
    asked = endpoint(server, tmp_path)
    asked.complete(BODY)
    (path,) = (tmp_path / "cache").rglob("*.json")
    asked.complete(BODY, draw=1)
    (other,) = set((tmp_path / "cache").rglob("*.json")) - {path}
    content = path.read_bytes()
    damaged = {
        "altered": content.replace(b"yes", b"no!"),
        "truncated": content[:50],
        "empty": b"",
        "another's": other.read_bytes(),
    }[damage]
    path.write_bytes(damaged)
    with pytest.raises(CorruptDataError, match="Remove this file, and the question will be asked"):
        asked.complete(BODY)
    assert path.read_bytes() == damaged
    assert len(server.bodies) == 2


def test_the_rate_is_kept_by_all_threads_together(server, tmp_path):
    asked = endpoint(server, tmp_path, requests_per_minute=600.0)
    threads = [Thread(target=asked.complete, args=(BODY,), kwargs={"draw": draw}) for draw in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.started) == 6
    assert max(server.started) - min(server.started) >= 0.45


def test_tokens_are_counted_and_priced(server, tmp_path):
    asked = endpoint(server, tmp_path, input_price=3.0, output_price=15.0)
    for draw in (0, 1, 1):
        asked.complete(BODY, draw=draw)
    assert asked.described_usage() == (
        "2 requests, 2 answers and 1 from the cache; 20 tokens of questions and 4 of answers, "
        "for 0.0001 at the prices given"
    )


def test_the_key_is_sent_and_neither_written_nor_logged(server, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    asked = endpoint(server, tmp_path)
    asked.complete(BODY)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert KEY not in repr(asked) + repr(asked.config)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("OPENAI_API_KEY")
    endpoint(server, tmp_path).complete(BODY, draw=1)
    assert "Authorization" not in server.headers[1]


def test_no_proxy_comes_between_this_machine_and_itself(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert endpoint(server, tmp_path).complete(BODY).choices[0].text == "yes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://example.com/v1"}, "http:// to another machine, and a key"),
        ({"url": "ftp://example.com"}, "without a password"),
        ({"url": "https://me:secret@example.com"}, "without a password"),
        ({"url": "https://example.com/v1?key=secret"}, "without a password"),
        ({"url": "https://example.com:99999999"}, "without a password"),
        ({"url": "https://"}, "without a password"),
        ({"num_attempts": 0}, "num_attempts: found 0"),
        ({"requests_per_minute": 0.0}, "requests_per_minute"),
        ({"input_price": -1.0}, "input_price"),
    ],
)
def test_options_that_are_not_what_they_must_be_are_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Endpoint(EndpointConfig(**options))
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX: y")
    with pytest.raises(InputError, match="OPENAI_API_KEY: found a key that cannot be sent") as caught:
        Endpoint(EndpointConfig())
    assert KEY not in str(caught.value)

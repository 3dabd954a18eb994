"""Tests of mtbkd_jax.adapters.closed_models, against a server on this machine that knows the right answer."""

import socket

import numpy as np
import pytest

from mtbkd_jax.adapters import Endpoint, EndpointConfig, from_endpoint, make_prompt, make_questions, teach
from mtbkd_jax.adapters.closed_models import class_of_answer
from mtbkd_jax.cli import main
from mtbkd_jax.errors import InputError, TeacherError
from mtbkd_jax.teachers import open_teacher_outputs
from tests.adapters.chat_server import completion, serving, write
from tests.adapters.table import numbers

PROMPT = make_prompt("Film: {input}\nGood or bad?", {"good": ["good", "fine"], "bad": "bad"})
TEXTS = np.array([f"film {row} {'x' * (row % 5)}" for row in range(130)])
IDS = np.array([f"id {row}" for row in range(130)])


def asked_about(body):
    return body["messages"][0]["content"].removeprefix("Film: ").removesuffix("\nGood or bad?")


def good_probability(text):
    """What the model on the server believes: something between .05 and .95 for each text."""
    return 0.05 + 0.9 * (int(text.split()[1]) * 37 % 101) / 100


def with_log_probs(body):
    good = good_probability(asked_about(body))
    shares = {"Good": 0.5 * good, " good": 0.2 * good, "fine": 0.2 * good, "bad": 0.9 * (1 - good), "well": 0.1}
    return completion("good", first_tokens={token: float(np.log(share)) for token, share in shares.items()})


def without_log_probs(body):
    """Of 20 answers 'good' are as many as the probability says."""
    num_good = round(20 * good_probability(asked_about(body)))
    return completion(*(["Good."] * num_good + ["bad, because"] * 20)[: body.get("n", 1)])


@pytest.fixture
def asking(tmp_path):
    def asking(server, **options):
        return Endpoint(EndpointConfig(url=server.url, cache=tmp_path / "cache", requests_per_minute=1e9, **options))

    return asking


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_log_probabilities_are_those_of_the_model(tmp_path, asking, batch_size):
    with serving(with_log_probs) as server:
        adapter = from_endpoint(asking(server), "m", PROMPT)
        outputs = teach(tmp_path / "out", {"m": adapter}, make_questions(TEXTS, ids=IDS), batch_size=batch_size)
    assert outputs.class_names == ("good", "bad")
    expected = [[good_probability(text), 1 - good_probability(text)] for text in TEXTS]
    np.testing.assert_allclose(np.exp(outputs.logits(IDS)[:, 0]), expected, rtol=1e-5)
    assert len(server.bodies) == len(TEXTS)


def test_answers_are_sampled_where_there_are_no_log_probabilities(asking):
    with serving(without_log_probs) as server:
        probs = from_endpoint(asking(server), "m", PROMPT, num_samples=20).predict(TEXTS[:10])
    # The first answer, to the question for log probabilities, counts.
    assert [body.get("n") for body in server.bodies].count(19) == 10
    first = np.array([round(20 * good_probability(text)) > 0 for text in TEXTS[:10]])
    rest = np.array([min(round(20 * good_probability(text)), 19) for text in TEXTS[:10]])
    np.testing.assert_allclose(probs[:, 0], (first + rest + 0.5) / 21, rtol=1e-6)


def test_fields_that_a_server_refuses_are_left_out_afterwards(asking):
    def plain(body):
        refused = sorted({"logprobs", "n"} & set(body))
        return (422, f"unknown fields {refused}") if refused else without_log_probs(body)

    with serving(plain) as server:
        adapter = from_endpoint(asking(server, num_parallel=1), "m", PROMPT, num_samples=3)
        for text in TEXTS[:5]:
            np.testing.assert_allclose(adapter.predict(np.array([text])).sum(), 1)
    assert sum("logprobs" in body for body in server.bodies) == 1
    assert sum("n" in body for body in server.bodies) == 1
    assert len(server.bodies) == 2 + 5 * 3


def test_a_question_that_is_refused_for_itself_is_no_reason_to_ask_for_less(asking):
    def picky(body):
        return (400, "too long") if asked_about(body) == TEXTS[1] else with_log_probs(body)

    with serving(picky) as server:
        adapter = from_endpoint(asking(server, num_parallel=1), "m", PROMPT)
        with pytest.raises(TeacherError, match="too long"):
            adapter.predict(TEXTS[1:2])
        adapter.predict(TEXTS[:1])
    assert "logprobs" in server.bodies[-1]


def test_words_longer_than_a_token_are_sampled(asking):
    def answer(body):
        return completion(*["good"] * body.get("n", 1), first_tokens={"go": -0.1, "bad": -3.0})

    with serving(answer) as server:
        probs = from_endpoint(asking(server), "m", PROMPT, num_samples=4).predict(TEXTS[:1])
    np.testing.assert_allclose(probs, [[0.9, 0.1]])


def test_a_model_that_never_answers_by_a_word_says_that_it_does_not_know(asking):
    with serving(lambda body: completion(*["I cannot say"] * body.get("n", 1))) as server:
        adapter = from_endpoint(asking(server), "m", PROMPT)
        probs = adapter.predict(TEXTS[:1])
    np.testing.assert_allclose(probs, [[0.5, 0.5]])
    assert "16 of 16 sampled answers begin by no label word" in adapter.cost()


def test_interrupted_by_a_failing_server_and_resumed_nothing_is_asked_twice(tmp_path, asking):
    questions = make_questions(TEXTS, ids=IDS)
    with serving(with_log_probs) as server:
        server.faults = [lambda handler: write(handler, 500, b"")] * 2
        adapter = from_endpoint(asking(server), "m", PROMPT)
        server.answer = lambda body: (404, "gone") if len(server.bodies) > 40 else with_log_probs(body)
        with pytest.raises(TeacherError, match="gone"):
            teach(tmp_path / "out", {"m": adapter}, questions, batch_size=7)
        server.answer = with_log_probs
        adapter = from_endpoint(asking(server), "m", PROMPT)
        teach(tmp_path / "out", {"m": adapter}, questions, batch_size=7, resume=True)
        answered = [asked_about(body) for body in server.bodies[2:40]] + [
            asked_about(body) for body in server.bodies[-(len(TEXTS) - 38) :]
        ]
    assert sorted(answered) == sorted(TEXTS)
    outputs = open_teacher_outputs(tmp_path / "out")
    expected = [good_probability(text) for text in TEXTS]
    np.testing.assert_allclose(np.exp(outputs.logits(IDS)[:, 0, 0]), expected, rtol=1e-5)


def test_a_server_that_fails_at_random_is_got_over(tmp_path, asking):
    faults = [
        lambda handler: write(handler, 429, b"slow down"),
        lambda handler: write(handler, 500, b""),
        lambda handler: write(handler, 200, b'{"choices": [{"mess'),
        lambda handler: write(handler, 200, b"<html>"),
        lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
    ]
    with serving(with_log_probs) as server:
        server.faults = [faults[number] for number in np.random.default_rng(0).integers(0, len(faults), 12)]
        adapter = from_endpoint(asking(server), "m", PROMPT)
        outputs = teach(tmp_path / "out", {"m": adapter}, make_questions(TEXTS, ids=IDS))
    expected = [good_probability(text) for text in TEXTS]
    np.testing.assert_allclose(np.exp(outputs.logits(IDS)[:, 0, 0]), expected, rtol=1e-5)
    assert len(server.bodies) == len(TEXTS) + 12


def test_the_same_text_is_asked_about_once(asking):
    with serving(with_log_probs) as server:
        probs = from_endpoint(asking(server), "m", PROMPT).predict(TEXTS[[3, 4, 3, 3]])
    assert len(server.bodies) == 2
    np.testing.assert_array_equal(probs[[0, 0]], probs[[2, 3]])


def test_the_command(tmp_path, capsys):
    np.savez(tmp_path / "data.npz", inputs=TEXTS, ids=IDS)
    with serving(with_log_probs) as server:
        files = ["--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out")]
        asking = ["--endpoint.url", server.url, "--endpoint.cache", str(tmp_path / "cache")]
        asking += ["--endpoint.requests-per-minute", "1e9", "--endpoint.input-price", "2"]
        prompt = ["--prompt.template", "Film: {input}\nGood or bad?"]
        prompt += ["--prompt.words", "good=good", "good=fine", "bad=bad"]
        main(["teach", "--adapter", "endpoint", "--model", "m", *files, *asking, *prompt])
    assert "130 requests" in capsys.readouterr().out
    outputs = open_teacher_outputs(tmp_path / "out")
    expected = [good_probability(text) for text in TEXTS]
    np.testing.assert_allclose(np.exp(outputs.logits(IDS)[:, 0, 0]), expected, rtol=1e-5)


def test_words_that_differ_in_their_case_alone_are_refused(asking):
    with serving(with_log_probs) as server, pytest.raises(InputError, match="for more than one class: 'a'"):
        from_endpoint(asking(server), "m", make_prompt("{input}", {"x": "A", "y": "a"}))


def test_numbers_are_refused(asking):
    with serving(with_log_probs) as server, pytest.raises(InputError, match="expected text"):
        from_endpoint(asking(server), "m", PROMPT).predict(numbers())


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("good", 0),
        (" Good!\n", 0),
        ("'bad'", 1),
        ("**Bad**: it was", 1),
        ("goodness", None),
        ("not good", None),
        ("", None),
        ("(a)", 2),
    ],
)
def test_answers_are_read_by_the_word_that_they_begin_by(text, label):
    assert class_of_answer(text, {"good": 0, "bad": 1, "(a)": 2}) == label

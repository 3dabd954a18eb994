"""A real server with a real model: ``transformers serve``, which samples and gives no log probabilities.

Skipped where ``transformers[serving]`` is not installed.
"""

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from mtbkd_jax.adapters import Endpoint, EndpointConfig, from_endpoint, make_prompt
from tests.adapters.table import small_tokenizer

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

GOOD = 0.7
"""What the model gives to the word, whatever it reads; the rest goes to another word."""


def write_model(directory):
    """A model whose last layer sees a constant, and so answers by one of two tokens with known probabilities."""
    tokenizer = small_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    sizes = {"bos_token_id": 1, "eos_token_id": 1, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    config = transformers.GPT2Config(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes)
    model = transformers.GPT2LMHeadModel(config).eval()
    log_probs = torch.full((len(tokenizer),), -30.0)
    for word, share in {"good": GOOD, "bad": 1 - GOOD}.items():
        (token,) = tokenizer(word)["input_ids"]
        log_probs[token] = math.log(share)
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(torch.eye(16)[0])
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, 0] = log_probs
    model.generation_config = transformers.GenerationConfig(do_sample=True, top_k=0, pad_token_id=0)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@contextlib.contextmanager
def serving(directory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(directory)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(directory / "log", "wb") as log:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def test_frequencies_of_answers_are_the_probabilities_of_the_model(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model")
    prompt = make_prompt("the film was {input}", {"good": "good", "bad": "bad"})
    num_samples, texts = 30, np.array(["not bad", "very good"])
    options = {"num_samples": num_samples, "max_tokens": 1}
    with serving(tmp_path / "model") as url:
        config = EndpointConfig(url=url, cache=tmp_path / "cache", requests_per_minute=1e6)
        with Endpoint(config) as endpoint:
            probs = from_endpoint(endpoint, str(tmp_path / "model"), prompt, **options).predict(texts)
    assert endpoint.usage.num_answers == num_samples * len(texts)
    assert endpoint.usage.num_output_tokens == num_samples * len(texts)
    # 4.5 standard errors, and what the prior of half an answer a class moves.
    error = 4.5 * math.sqrt(GOOD * (1 - GOOD) / num_samples) + 0.5 / num_samples
    np.testing.assert_allclose(probs[:, 0], GOOD, atol=error)
    with Endpoint(config) as endpoint:  # the server is gone
        known = from_endpoint(endpoint, str(tmp_path / "model"), prompt, **options).predict(texts)
    np.testing.assert_array_equal(known, probs)

"""Tests of mtbkd_jax.adapters.label_words; skipped where transformers is not installed."""

import numpy as np
import pytest

from mtbkd_jax.adapters import from_language_model, make_prompt, read_language_model
from mtbkd_jax.errors import InputError
from tests.adapters.table import language_model, numbers, small_tokenizer, word_log_prob

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

TEXTS = np.array(["the film was {input} good", "bad"])
WORDS = {"good": " good", "bad": " very bad indeed"}
TEMPLATE = "Film: {input}\nIt was"


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return language_model(tokenizer)


@pytest.mark.parametrize("normalisation", ["none", "tokens", "bytes"])
def test_scores_are_divided_by_the_length_that_is_named(model, tokenizer, normalisation):
    adapter = from_language_model(model, tokenizer, make_prompt(TEMPLATE, WORDS), normalisation=normalisation)
    expected = np.empty((2, 2))
    for row, text in enumerate(TEXTS):
        start = TEMPLATE.replace("{input}", text)
        for column, word in enumerate(WORDS.values()):
            num_tokens = len(tokenizer(start + word)["input_ids"]) - len(tokenizer(start)["input_ids"])
            length = {"none": 1, "tokens": num_tokens, "bytes": len(word)}[normalisation]
            expected[row, column] = word_log_prob(model, tokenizer, start, word) / length
    np.testing.assert_allclose(adapter.predict(TEXTS), expected, rtol=1e-5)
    assert adapter.class_names == ("good", "bad")
    assert f"normalisation {normalisation}" in adapter.source


def test_words_of_one_token_need_one_pass(model, tokenizer, monkeypatch):
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: passes.append(len(inputs["input_ids"])) or forward(**inputs))
    from_language_model(model, tokenizer, make_prompt(TEMPLATE, {"a": "a", "b": "b"})).predict(TEXTS)
    assert passes == [2]


def test_a_word_that_would_share_a_token_with_the_prompt_is_refused(model, tokenizer):
    prompt = make_prompt("{input} It was g", {"good": "ood", "bad": "x"})
    with pytest.raises(InputError, match=r"a token of both the prompt's end .* and the word 'ood'"):
        from_language_model(model, tokenizer, prompt).predict(TEXTS)


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(model, tokenizer):
    adapter = from_language_model(model, tokenizer, make_prompt(TEMPLATE, WORDS))
    with pytest.raises(InputError, match="128 at most"):
        adapter.predict(np.array(["good " * 200]))


def test_a_language_model_is_read_from_its_directory(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompt = make_prompt(TEMPLATE, WORDS)
    expected = from_language_model(model, tokenizer, prompt).predict(TEXTS)
    np.testing.assert_allclose(read_language_model(tmp_path, prompt).predict(TEXTS), expected, rtol=1e-5)


def test_numbers_are_refused(model, tokenizer):
    with pytest.raises(InputError, match="expected text"):
        from_language_model(model, tokenizer, make_prompt(TEMPLATE, WORDS)).predict(numbers())

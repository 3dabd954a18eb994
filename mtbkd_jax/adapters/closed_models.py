"""Teachers that are closed models behind an endpoint: all that they give is text, and perhaps log probabilities.

Where the server gives log probabilities of the first token, a class has those of its words, whatever their case and the
spaces around them, renormalised over the classes. A class whose words are not among the tokens listed has at most the
probability of the least likely one listed, and no more than what the listed ones leave, shared among such classes; it
gets that.

Where there are none, or label words have less than half of the first token's probability (because they are longer than
a token, or the model begins by something else), n answers are sampled, and a class has by a Dirichlet prior

    p_c = (n_c + α) / (Σ_c n_c + α C)         n_c: answers that are, or begin by, a word of the class

so that a model which never answers by a label word says that it does not know.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbkd_jax.adapters.base import Adapter, Inputs, check_texts
from mtbkd_jax.adapters.completions import Completion
from mtbkd_jax.adapters.endpoint import Endpoint, RefusedError
from mtbkd_jax.adapters.prompts import Prompt
from mtbkd_jax.checks import check_positive, check_whole, some
from mtbkd_jax.errors import InputError

_NUM_LISTED = 20
"""Tokens whose log probabilities are asked for: as many as OpenAI gives."""
_LEAST_SHARE = 0.5
"""Of the first token's probability that label words must have."""


def from_endpoint(
    endpoint: Endpoint,
    model: str,
    prompt: Prompt,
    *,
    num_samples: int = 16,
    pseudo_count: float = 0.5,
    max_tokens: int = 8,
) -> Adapter:
    """Make an adapter of a model behind an endpoint; its inputs are texts.

    Args:
      endpoint: the server.
      model: what the server calls the model.
      prompt: should ask for one of the words and nothing else; words that are a single token are cheapest.
      num_samples: n, where answers have to be sampled.
      pseudo_count: α of the Dirichlet prior.
      max_tokens: of an answer.

    Raises:
      InputError: if an option is not what it must be, or words of two classes differ in their case alone.
    """
    check_whole("endpoint", 1, num_samples=num_samples, max_tokens=max_tokens)
    check_positive(pseudo_count=pseudo_count)
    class_of = _class_of_word(prompt)
    num_classes = len(prompt.class_names)
    refused: set[str] = set()
    sampled: list[list[int | None]] = []

    def complete(body: Mapping[str, Any], fields: Mapping[str, Any], **options: Any) -> Completion:
        """Ask with fields that not every server accepts, or without those that this one was found to refuse."""
        named = ", ".join(fields)
        if named not in refused:
            try:
                return endpoint.complete({**body, **fields}, **options)
            except RefusedError:
                completion = endpoint.complete(body, **options)  # refused again if it was not for these fields
                refused.add(named)
                return completion
        return endpoint.complete(body, **options)

    def ask(text: str, stopping: Event) -> Float[np.ndarray, " classes"]:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt.text(text)}],
            "max_tokens": max_tokens,
            "temperature": 1.0,
        }
        fields = {"logprobs": True, "top_logprobs": _NUM_LISTED}
        choices = list(complete(body, fields, stopping=stopping).choices)
        if choices[0].first_tokens is not None:
            probs = listed_probs(choices[0].first_tokens, class_of, num_classes)
            if probs is not None:
                return probs
        while (num_missing := num_samples - len(choices)) > 0:
            choices += complete(body, {"n": num_missing}, draw=len(choices), stopping=stopping).choices
        labels = [class_of_answer(choice.text, class_of) for choice in choices[:num_samples]]
        sampled.append(labels)
        return dirichlet_mean(labels, num_classes, pseudo_count)

    def predict(inputs: Inputs) -> Float[np.ndarray, "batch classes"]:
        check_texts(inputs, model)
        texts, rows = np.unique(inputs, return_inverse=True)
        stopping = Event()
        with ThreadPoolExecutor(endpoint.config.num_parallel) as pool:
            try:
                return np.stack(list(pool.map(lambda text: ask(text, stopping), texts.tolist())))[rows]
            finally:
                stopping.set()

    def cost() -> str:
        num_unread = sum(labels.count(None) for labels in sampled)
        if not num_unread:
            return endpoint.described_usage()
        num_sampled = sum(map(len, sampled))
        return f"{endpoint.described_usage()}. {num_unread:,} of {num_sampled:,} sampled answers begin by no label word"

    described = (
        f"model {model} at {endpoint.config.url}; prompt {prompt.template!r}, words {dict(prompt.words)}, "
        f"{num_samples} samples, pseudo-count {pseudo_count:g}, {max_tokens} tokens at most"
    )
    return Adapter(predict, "probabilities", prompt.class_names, described, cost)


def listed_probs(
    first_tokens: Sequence[tuple[str, float]], class_of: Mapping[str, int], num_classes: int
) -> Float[np.ndarray, " classes"] | None:
    """Probabilities of classes by those of first tokens; None where label words have too small a share of it.

    >>> listed_probs([("Yes", np.log(0.6)), (" yes", np.log(0.2)), ("Well", np.log(0.1))], {"yes": 0, "no": 1}, 2)
    array([0.88888889, 0.11111111])
    >>> listed_probs([("Well", np.log(0.9)), ("yes", np.log(0.1))], {"yes": 0, "no": 1}, 2)
    """
    listed = np.exp([value for _, value in first_tokens])
    probs, is_listed = np.zeros(num_classes), np.zeros(num_classes, bool)
    for (token, _), prob in zip(first_tokens, listed, strict=True):
        if (label := class_of.get(_plain(token))) is not None:
            probs[label] += prob
            is_listed[label] = True
    if probs.sum() < _LEAST_SHARE:
        return None
    if num_missing := num_classes - is_listed.sum():
        left = max(0.0, 1 - listed.sum()) / num_missing
        probs[~is_listed] = min(listed.min(), left)
    return probs / probs.sum()


def dirichlet_mean(
    labels: Sequence[int | None], num_classes: int, pseudo_count: float
) -> Float[np.ndarray, " classes"]:
    """Posterior mean of the probabilities of classes under a symmetric Dirichlet prior; None is of no class.

    >>> dirichlet_mean([0, 0, None], 2, 1.0)
    array([0.75, 0.25])
    """
    counts = pseudo_count + np.bincount([label for label in labels if label is not None], minlength=num_classes)
    return counts / counts.sum()


def class_of_answer(text: str, class_of: Mapping[str, int]) -> int | None:
    """The class of the longest word that an answer begins by, perhaps after quotation marks or the like.

    >>> [class_of_answer(text, {"yes": 0, "no": 1}) for text in ("Yes.", "'no', since", "Nothing")]
    [0, 1, None]
    """
    answer = _plain(text)
    begins = (answer, re.sub(r"^\W+", "", answer))
    begun_by = [word for word in class_of if any(re.match(rf"{re.escape(word)}(?!\w)", begin) for begin in begins)]
    return class_of[max(begun_by, key=len)] if begun_by else None


def _class_of_word(prompt: Prompt) -> dict[str, int]:
    words = [(_plain(word), label) for label, of in enumerate(prompt.words.values()) for word in of]
    class_of = dict(words)
    if twice := sorted({word for word, label in words if class_of[word] != label}):
        action = "Choose words that differ in more than their case."
        raise InputError("prompt", "words", f"for more than one class: {some(twice)}", "each for one class", action)
    return class_of


def _plain(text: str) -> str:
    return text.strip().casefold()

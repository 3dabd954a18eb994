"""Teachers that are causal language models, scored by the log probabilities of label words.

A word w of tokens w_1 ... w_T after a prompt x has the score

    score(w) = Σ_t log p(w_t | x, w_<t) / length(w)        length: 1, T, or the number of bytes of w

and a class has logsumexp over the scores of its words as its logit. Without normalisation (``none``) this is the
probability that the model goes on by one of these words, renormalised over the classes; long words then have less of
it. ``tokens`` and ``bytes`` make scores of words of different lengths comparable, and are no log probabilities.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from mtbkd_jax.adapters.base import Adapter, Inputs, check_texts
from mtbkd_jax.adapters.prompts import Prompt
from mtbkd_jax.adapters.torch_modules import as_array, check_evaluation_mode
from mtbkd_jax.adapters.transformers_models import describe_directory, read_model, read_processor
from mtbkd_jax.checks import check_one_of
from mtbkd_jax.errors import InputError

Normalisation = Literal["none", "tokens", "bytes"]
"""What the log probability of a word is divided by: nothing, its number of tokens, its number of bytes."""

Tokens = tuple[int, ...]


def read_language_model(
    path: str | Path, prompt: Prompt, *, normalisation: Normalisation = "none", device: str = "cpu"
) -> Adapter:
    """Make an adapter of the directory of a model ``AutoModelForCausalLM`` with its tokenizer.

    Args:
      path: the directory.
      prompt: see ``from_language_model``.
      normalisation: see ``from_language_model``.
      device: what PyTorch calls the device to compute on.

    Raises:
      InputError: if it is no such directory, or lacks weights.
    """
    import transformers

    model = read_model(path, transformers.AutoModelForCausalLM, device=device)
    tokenizer = read_processor(path, transformers.AutoTokenizer)
    return from_language_model(model, tokenizer, prompt, normalisation=normalisation, source=describe_directory(path))


def from_language_model(
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    *,
    normalisation: Normalisation = "none",
    source: str = "causal language model",
) -> Adapter:
    """Make an adapter of a causal language model; its inputs are texts.

    Where all words are single tokens the model is run once for each text; else once for each beginning of a word that
    is not the beginning of another.

    Args:
      model: a ``PreTrainedModel`` for causal language modelling, in evaluation mode.
      tokenizer: its tokenizer.
      prompt: the template must end where a token ends; for most tokenizers a space belongs to the word after it.
      normalisation: what the log probability of a word is divided by.
      source: what the teacher is, in words.

    Raises:
      InputError: if the model is in training mode, a word shares a token with the prompt's end, or a prompt is longer
        than the model can read.
    """
    check_evaluation_mode(model)
    check_one_of(("none", "tokens", "bytes"), "language model", "normalisation", normalisation)
    words = [word for of in prompt.words.values() for word in of]
    last_of_class = np.cumsum([len(of) for of in prompt.words.values()])[:-1]

    def predict(inputs: Inputs) -> Float[np.ndarray, "batch classes"]:
        check_texts(inputs, source)
        encoded = [_encode(tokenizer, prompt.text(text), words, source) for text in inputs.tolist()]
        _check_lengths(encoded, model, source)
        log_probs = _word_log_probs(model, encoded)
        lengths = {
            "none": np.ones(log_probs.shape),
            "tokens": np.array([[len(word) for word in of] for _, of in encoded]),
            "bytes": np.tile([len(word.encode()) for word in words], (len(inputs), 1)),
        }
        scores = log_probs / lengths[normalisation]
        return np.stack([logsumexp(of, axis=1) for of in np.split(scores, last_of_class, axis=1)], axis=1)

    described = f"{source}; prompt {prompt.template!r}, words {dict(prompt.words)}, normalisation {normalisation}"
    return Adapter(predict, "logits", prompt.class_names, described)


def _encode(tokenizer: Any, text: str, words: Sequence[str], where: str) -> tuple[Tokens, list[Tokens]]:
    """Tokens of a prompt, and of each word after it."""
    start = tuple(tokenizer(text)["input_ids"])
    continuations = []
    for word in words:
        tokens = tuple(tokenizer(text + word)["input_ids"])
        if len(tokens) <= len(start) or tokens[: len(start)] != start:
            found = f"a token of both the prompt's end {text[-10:]!r} and the word {word!r}"
            action = "End the template without a space, and begin the words with one; or the other way round."
            raise InputError(where, "words", found, "words that begin with a token of their own", action)
        continuations.append(tokens[len(start) :])
    return start, continuations


def _check_lengths(encoded: Sequence[tuple[Tokens, list[Tokens]]], model: Any, where: str) -> None:
    most = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(start) + max(map(len, words)) for start, words in encoded)
    if most is not None and longest > most:
        found, expected = f"a prompt and a word of {longest} tokens together", f"{most} at most"
        raise InputError(where, "inputs", found, expected, "Shorten the text: what asks the question comes last.")


def _word_log_probs(model: Any, encoded: Sequence[tuple[Tokens, list[Tokens]]]) -> Float[np.ndarray, "batch words"]:
    """Log probability of each word after each prompt, in double precision sums."""
    branches = [(row, start, branch) for row, (start, words) in enumerate(encoded) for branch in _branches(words)]
    log_probs = np.full((len(encoded), len(encoded[0][1])), np.nan)
    for first in range(0, len(branches), len(encoded)):
        some_branches = branches[first : first + len(encoded)]
        after = _next_log_probs(model, [(start, branch) for _, start, branch in some_branches])
        for (row, _, branch), of_token in zip(some_branches, after, strict=True):
            for column, word in enumerate(encoded[row][1]):
                if branch[: len(word) - 1] == word[:-1]:
                    log_probs[row, column] = of_token[np.arange(len(word)), list(word)].sum(dtype=np.float64)
    return log_probs


def _branches(words: Sequence[Tokens]) -> list[Tokens]:
    """What the model has to read to score all words: their beginnings, less those that others begin with.

    >>> _branches([(1,), (2,), (3, 4, 5), (3, 4, 6), (7, 8)])
    [(3, 4), (7,)]
    >>> _branches([(1,), (2,)])
    [()]
    """
    beginnings = {word[:-1] for word in words}
    covered = {of[:length] for of in beginnings for length in range(len(of))}
    return sorted(beginnings - covered)


def _next_log_probs(
    model: Any, sequences: Sequence[tuple[Tokens, Tokens]]
) -> list[Float[np.ndarray, "tokens vocabulary"]]:
    """Log probabilities of the token after a prompt, and after each token of the branch that follows it.

    Padding is on the right, where a causal model does not see it.
    """
    import torch

    longest = max(len(start) + len(branch) for start, branch in sequences)
    tokens = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, (start, branch) in enumerate(sequences):
        length = len(start) + len(branch)
        tokens[row, :length] = torch.tensor(start + branch)
        mask[row, :length] = 1
    with torch.inference_mode():
        logits = model(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device)).logits
        return [
            as_array(logits[row, len(start) - 1 : len(start) + len(branch)].float().log_softmax(dim=-1))
            for row, (start, branch) in enumerate(sequences)
        ]

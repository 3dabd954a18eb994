"""What a server with an OpenAI-compatible interface answers, checked field by field: it may be anything.

Only what is used is kept: the text of each choice, the likeliest first tokens where there are log probabilities, and
how many tokens were paid for.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_ROUNDING = 1e-3
"""How far above zero a log probability may lie, and the sum of probabilities above one."""


class Choice(NamedTuple):
    """One answer.

    Attributes:
      text: what was said.
      first_tokens: the likeliest first tokens with their log probabilities; None where the server gives none.
    """

    text: str
    first_tokens: tuple[tuple[str, float], ...] | None


class Completion(NamedTuple):
    """All answers to one question.

    Attributes:
      choices: one or more.
      num_input_tokens: of the question, 0 where the server does not say.
      num_output_tokens: of the answers.
    """

    choices: tuple[Choice, ...]
    num_input_tokens: int
    num_output_tokens: int

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` takes."""
        return {
            "choices": [{"text": choice.text, "first_tokens": choice.first_tokens} for choice in self.choices],
            "num_input_tokens": self.num_input_tokens,
            "num_output_tokens": self.num_output_tokens,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Completion":
        """Make it again from what ``to_json`` returned."""
        choices = tuple(Choice(of["text"], _tuples(of["first_tokens"])) for of in content["choices"])
        return cls(choices, content["num_input_tokens"], content["num_output_tokens"])


def _tuples(first_tokens: Any) -> tuple[tuple[str, float], ...] | None:
    return None if first_tokens is None else tuple((token, value) for token, value in first_tokens)


class MalformedAnswerError(ValueError):
    """A server has answered with something else than a completion."""


def parse_completion(content: bytes) -> Completion:
    r"""Read a chat completion.

    Raises:
      MalformedAnswerError: if it is none, or holds a log probability that is none.

    >>> parse_completion(b'{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 7}}')
    Completion(choices=(Choice(text='yes', first_tokens=None),), num_input_tokens=7, num_output_tokens=0)
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError(f"no JSON: {error}") from error
    choices = _typed(body, "choices", list)
    if not choices:
        raise MalformedAnswerError("no choices")
    usage = _optional(body, "usage", dict) or {}
    return Completion(tuple(map(_choice, choices)), _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def _choice(choice: Any) -> Choice:
    message = _typed(choice, "message", dict)
    # A model that refuses to answer says nothing.
    return Choice(_optional(message, "content", str) or "", _first_tokens(choice))


def _first_tokens(choice: Any) -> tuple[tuple[str, float], ...] | None:
    log_probs = _optional(choice, "logprobs", dict)
    positions = None if log_probs is None else _optional(log_probs, "content", list)
    if not positions:
        return None
    alternatives = _optional(positions[0], "top_logprobs", list)
    if not alternatives:
        return None
    tokens = tuple((_typed(of, "token", str), _log_prob(of)) for of in alternatives)
    if math.fsum(math.exp(value) for _, value in tokens) > 1 + _ROUNDING:
        raise MalformedAnswerError("probabilities that sum to more than one")
    return tokens


def _log_prob(alternative: Any) -> float:
    value = float(_typed(alternative, "logprob", (int, float)))
    if math.isnan(value) or value > _ROUNDING:
        raise MalformedAnswerError(f"a log probability of {value}")
    return min(value, 0.0)


def _count(usage: Any, field: str) -> int:
    count = _optional(usage, field, int) or 0
    if count < 0:
        raise MalformedAnswerError(f"{field} of {count}")
    return count


def _typed(body: Any, field: str, kind: Any) -> Any:
    value = _optional(body, field, kind)
    if value is None:
        raise MalformedAnswerError(f"no {field}")
    return value


def _optional(body: Any, field: str, kind: Any) -> Any:
    if not isinstance(body, dict):
        raise MalformedAnswerError(f"no object around {field}")
    value = body.get(field)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise MalformedAnswerError(f"{field} of type {type(value).__name__}")
    return value

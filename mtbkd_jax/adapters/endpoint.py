"""An endpoint: a server with an OpenAI-compatible HTTP interface, asked politely, and nothing twice.

A question that meets a time-out, a lost connection, the states 408, 409, 425, 429 or 5xx, or an answer that is
malformed or truncated, is asked again: after up to 1/2, 1, 2, 4 ... seconds, at random, and no sooner than the server
wishes. The API key comes from the environment, and goes into the header of a request and nowhere else: redirections are
not followed, and what a server says is not repeated before the key is struck out of it.
"""

import ipaddress
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from mtbkd_jax.adapters.answer_cache import AnswerCache
from mtbkd_jax.adapters.completions import Completion, MalformedAnswerError, parse_completion
from mtbkd_jax.checks import check_not_negative, check_positive, check_whole
from mtbkd_jax.errors import InputError, TeacherError
from mtbkd_jax.machine import user_cache

_MOST_BYTES = 4 << 20
"""Of an answer; a thousand times as much as one of 20 alternatives to a token takes."""
_MOST_SECONDS = 120.0
"""That a server can make us wait before we ask again."""
_ASK_AGAIN = (408, 409, 425, 429)
_REFUSED_FIELDS = (400, 422)
_MOST_LETTERS = 300


@dataclass(frozen=True)
class EndpointConfig:
    """Where a closed model is, and how it is asked."""

    url: str = "https://api.openai.com/v1"
    """The beginning of the addresses; ``/chat/completions`` comes after it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the API key; without such a variable none is sent."""
    cache: Path | None = None
    """Where answers are kept, so that nothing is asked twice; below ``~/.cache/mtbkd_jax`` by default."""
    requests_per_minute: float = 600.0
    """Requests that are begun in a minute, at the most."""
    num_parallel: int = 4
    """Requests at a time."""
    seconds_to_answer: float = 60.0
    """How long an answer may take as a whole."""
    num_attempts: int = 8
    """How often a question is asked before the run stops; it can be resumed."""
    input_price: float = 0.0
    """Of a million tokens of questions, in any currency."""
    output_price: float = 0.0
    """Of a million tokens of answers."""


class Usage(NamedTuple):
    """What was asked of a server, and what it said it took.

    Attributes:
      num_requests: that were sent, those that failed included.
      num_answers: that came from the server.
      num_cached: answers that were known already.
      num_input_tokens: of questions that were answered by the server.
      num_output_tokens: of these answers.
    """

    num_requests: int = 0
    num_answers: int = 0
    num_cached: int = 0
    num_input_tokens: int = 0
    num_output_tokens: int = 0


class RefusedError(TeacherError):
    """A server does not accept a question, perhaps for one of its fields."""


class Endpoint:
    """A server that completes chats; may be asked from several threads. As a context manager it hangs up at the end.

    Args:
      config: where it is, and how it is asked.

    Raises:
      InputError: if an option is not what it must be, or the key would be sent to another machine without encryption.
    """

    def __init__(self, config: EndpointConfig):
        import httpx

        check_whole("endpoint", 1, num_parallel=config.num_parallel, num_attempts=config.num_attempts)
        check_positive(requests_per_minute=config.requests_per_minute, seconds_to_answer=config.seconds_to_answer)
        check_not_negative(input_price=config.input_price, output_price=config.output_price)
        self.config = config
        self.usage = Usage()
        self._key = _read_key(config)
        self._url = config.url.rstrip("/") + "/chat/completions"
        self._cache = AnswerCache(config.cache or user_cache() / "answers")
        self._lock = threading.Lock()
        self._next_start = time.monotonic()
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._client = httpx.Client(
            headers=headers,
            timeout=config.seconds_to_answer,
            limits=httpx.Limits(max_connections=None),
            follow_redirects=False,
            trust_env=not _is_this_machine(urlsplit(config.url).hostname),  # no proxy comes between
        )

    def __enter__(self) -> "Endpoint":
        """Return the endpoint itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._client.close()

    def complete(
        self, body: Mapping[str, Any], *, draw: int = 0, stopping: threading.Event | None = None
    ) -> Completion:
        """Ask a question, if it was not asked before.

        Args:
          body: of the request, as JSON.
          draw: which answer to a question with random answers; each has its own place in the cache.
          stopping: set by another thread where nobody waits for the answer any more: it is not asked again then.

        Raises:
          RefusedError: if the server does not accept the question.
          TeacherError: if the server gives no answer, or turns us away.
          CorruptDataError: if the answer is in the cache, and was truncated or altered.
          StorageError: if the answer cannot be kept.
        """
        question = {"url": self._url, "body": dict(body), "draw": draw}
        if (known := self._cache.read(question)) is not None:
            self._count(num_cached=1)
            return Completion.from_json(known)
        completion = self._ask(body, stopping or threading.Event())
        self._cache.write(question, completion.to_json())
        self._count(
            num_answers=1,
            num_input_tokens=completion.num_input_tokens,
            num_output_tokens=completion.num_output_tokens,
        )
        return completion

    def described_usage(self) -> str:
        """What was asked, and what it costs at the prices of the configuration, in words."""
        usage, config = self.usage, self.config
        text = (
            f"{usage.num_requests:,} requests, {usage.num_answers:,} answers and {usage.num_cached:,} from the cache; "
            f"{usage.num_input_tokens:,} tokens of questions and {usage.num_output_tokens:,} of answers"
        )
        if not (config.input_price or config.output_price):
            return text
        cost = usage.num_input_tokens * config.input_price + usage.num_output_tokens * config.output_price
        return f"{text}, for {cost / 1e6:,.4f} at the prices given"

    def _ask(self, body: Mapping[str, Any], stopping: threading.Event) -> Completion:
        """Ask until there is an answer."""
        import tenacity

        backoff = tenacity.wait_random_exponential(multiplier=0.5, max=60)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            wished = error.seconds_to_wait if isinstance(error, _FailedAttemptError) else 0.0
            return max(wished, backoff(state))

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_FailedAttemptError),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.config.num_attempts), tenacity.stop_when_event_set(stopping)
            ),
            wait=wait,
            sleep=tenacity.sleep_using_event(stopping),
            reraise=True,
        )
        try:
            return attempts(self._attempt, body)
        except _FailedAttemptError as error:
            num_attempts = attempts.statistics["attempt_number"]
            what = f"no answer in {num_attempts} attempts, in the last one {error}"
            raise TeacherError(self._url, what, "Resume later: all answers so far are kept.") from None

    def _attempt(self, body: Mapping[str, Any]) -> Completion:
        import httpx

        self._wait_for_turn()
        self._count(num_requests=1)
        deadline = time.monotonic() + self.config.seconds_to_answer
        content = bytearray()
        try:
            with self._client.stream("POST", self._url, json=dict(body)) as response:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise _FailedAttemptError(f"an answer of more than {_MOST_BYTES:,} bytes")
                    if time.monotonic() > deadline:
                        raise _FailedAttemptError("an answer that took too long")
        except httpx.TransportError as error:
            raise _FailedAttemptError(self._readable(f"{type(error).__name__} {error}")) from None
        if response.status_code == httpx.codes.OK:
            try:
                return parse_completion(bytes(content))
            except MalformedAnswerError as error:
                raise _FailedAttemptError(f"a malformed answer ({self._readable(str(error))})") from None
        said = f"state {response.status_code} ({self._readable(content.decode(errors='replace'))})"
        if response.status_code in _ASK_AGAIN or response.status_code >= 500:
            raise _FailedAttemptError(said, _seconds(response.headers.get("retry-after", "")))
        if response.status_code in _REFUSED_FIELDS:
            raise RefusedError(self._url, said, "Correct what it complains of, and resume.")
        action = f"Check the address, the model's name, and the key in {self.config.key_variable}; then resume."
        raise TeacherError(self._url, said, action)

    def _wait_for_turn(self) -> None:
        """Sleep until a request may begin at the rate of the configuration."""
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 60 / self.config.requests_per_minute
        time.sleep(max(0.0, start - time.monotonic()))

    def _count(self, **counts: int) -> None:
        with self._lock:
            self.usage = self.usage._replace(**{name: getattr(self.usage, name) + n for name, n in counts.items()})

    def _readable(self, text: str) -> str:
        """The beginning of what came from outside, without the key and without what moves a terminal's cursor."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(letter if letter.isprintable() else " " for letter in text[:_MOST_LETTERS]).strip()


class _FailedAttemptError(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, what: str, seconds_to_wait: float = 0.0):
        super().__init__(what)
        self.seconds_to_wait = seconds_to_wait


def _seconds(header: str) -> float:
    """How long a server wishes us to wait; its dates are ignored, as backing off takes as long."""
    return min(float(header), _MOST_SECONDS) if header.isdecimal() and header.isascii() else 0.0


def _read_key(config: EndpointConfig) -> str | None:
    """Check the address, and read the key that may be sent there."""
    where, parts = "endpoint", _parts(config.url)
    if parts is None or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        # The address itself is not repeated: it may hold a password.
        expected = "http(s)://HOST[:PORT]/PATH, without a password, a question mark or a hash sign"
        raise InputError(where, "url", "something else", expected, "The key goes into an environment variable.")
    key = os.environ.get(config.key_variable, "").strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        expected, action = "one of printable ASCII letters without spaces", "Copy it again."
        raise InputError(where, config.key_variable, "a key that cannot be sent", expected, action)
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        found, expected = "http:// to another machine, and a key", "https://, so that nobody on the way reads the key"
        action = f"Use https, or a tunnel to this machine; or unset {config.key_variable} if no key is needed."
        raise InputError(where, "url", found, expected, action)
    return key


def _parts(url: str) -> SplitResult | None:
    """The parts of an address; None where it has no host, or a port that is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _is_this_machine(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"

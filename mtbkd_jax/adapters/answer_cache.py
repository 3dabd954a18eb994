"""Answers that were paid for, on the disk by the content of their question, so that nothing is asked twice.

    CACHE/ab/abcd...json     named by the SHA-256 of the question, with a digest of its own

A question is not written, only its digest; an answer is never replaced.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mtbkd_jax import storage
from mtbkd_jax.errors import CorruptDataError

_FORMAT: dict[str, Any] = {"format_name": "mtbkd_jax.answer", "version": 1}


class AnswerCache:
    """Answers by question; both are whatever JSON can hold.

    Args:
      path: the directory, which is made, for its owner's eyes only, when the first answer is kept.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)

    def read(self, question: Any) -> Any:
        """Return the answer to a question; None where it was not asked yet.

        Raises:
          CorruptDataError: if the answer was truncated or altered.
        """
        digest, path = self._place(question)
        if not path.exists():
            return None
        action = "Remove this file, and the question will be asked, and paid for, again."
        try:
            content = storage.read_manifest(path, **_FORMAT)
        except (CorruptDataError, ValueError, KeyError) as error:
            raise CorruptDataError(
                str(path), "answer", f"damage ({error})", "what was written there", action
            ) from error
        if content["question"] != digest:
            raise CorruptDataError(str(path), "question", content["question"], digest, action)
        return content["answer"]

    def write(self, question: Any, answer: Any) -> None:
        """Keep the answer to a question that has none yet.

        Raises:
          StorageError: if the disk is full or does not let us write.
        """
        digest, path = self._place(question)
        with storage.translated_errors(path):
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True)
        storage.write_manifest(path, {"question": digest, "answer": answer}, **_FORMAT)

    def _place(self, question: Any) -> tuple[str, Path]:
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        return digest, self._path / digest[:2] / f"{digest}.json"

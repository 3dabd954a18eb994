"""Teaching: inputs go through adapters in batches, and what teachers say of them into a directory of teacher outputs.

Rows are on the disk every so many seconds, and after an interruption or an error. A directory that was begun is gone on
with at the first id without an output, if ids, inputs and teachers are those that it was begun with.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtbkd_jax.adapters.base import Adapter, Inputs
from mtbkd_jax.checks import (
    Names,
    check_class_names,
    check_finite,
    check_ids,
    check_not_negative,
    check_num_examples,
    check_same_number,
    check_whole,
    some,
)
from mtbkd_jax.data import row_ids
from mtbkd_jax.errors import InputError, MTBKDError, TeacherError
from mtbkd_jax.npz_files import read_npz
from mtbkd_jax.teacher_writer import TeacherOutputsWriter
from mtbkd_jax.teachers import TeacherOutputs

_HASHED_ROWS = 4096


@dataclass(frozen=True)
class Questions:
    """What teachers are asked about; made by ``make_questions`` or ``read_questions``, which check it.

    Attributes:
      inputs: numbers, in the type that they came in, or text.
      ids: text, each once.
      class_names: in the order that the outputs are to have; None where that of the teachers will do.
    """

    inputs: Inputs
    ids: np.ndarray
    class_names: tuple[str, ...] | None = None


def make_questions(
    inputs: np.ndarray, *, ids: Names | None = None, class_names: Names | None = None, where: str = "questions"
) -> Questions:
    """Check arrays and make questions of them.

    Args:
      inputs: real numbers ``[examples, ...]``, or text ``[examples]``.
      ids: ``[examples]``; where there are none, the numbers of the rows from 0 stand in.
      class_names: in the order that the outputs are to have.
      where: what error messages call the arrays.

    Raises:
      InputError: if a number is NaN or infinite, a text is empty, the lengths differ, or an id is there twice.
    """
    if inputs.dtype.kind == "U":
        if inputs.ndim != 1:
            found = f"text of shape {inputs.shape}"
            raise InputError(where, "inputs", found, "[examples]", "Join the texts of an example into one.")
        if empty := np.flatnonzero(inputs == "").tolist():
            found = f"no text in {len(empty)} of {len(inputs)} rows: {some(empty)}"
            raise InputError(where, "inputs", found, "a text for each example", "Fill it in or leave the example out.")
    else:
        check_finite(inputs, where, "inputs")
    check_num_examples(len(inputs), where)
    checked_ids = row_ids(len(inputs)) if ids is None else check_ids(ids, where)
    check_same_number("rows", len(checked_ids), len(inputs), "as the inputs have", where, "ids")
    return Questions(inputs, checked_ids, None if class_names is None else check_class_names(class_names, where))


def read_questions(path: str | Path) -> Questions:
    """Read questions from an NPZ file with ``inputs``, perhaps ``ids`` and ``class_names``; the rest is left alone.

    Raises:
      InputError: if the file or a field of it is not what it must be.
      CorruptDataError: if it was truncated or altered.
    """
    fields = read_npz(path, required=("inputs",), optional=("ids", "class_names"))
    return make_questions(
        fields["inputs"], ids=fields.get("ids"), class_names=fields.get("class_names"), where=str(path)
    )


def teach(
    path: str | Path,
    teachers: Mapping[str, Adapter],
    questions: Questions,
    *,
    batch_size: int = 64,
    resume: bool = False,
    seconds_between: float = 30.0,
    progress: Callable[[str, int], None] = lambda teacher, num_done: None,
) -> TeacherOutputs:
    """Ask teachers about all inputs, write their outputs to a directory, and open it.

    Args:
      path: a new or an empty directory, or with ``resume`` an unfinished one.
      teachers: adapters by the name of the teacher.
      questions: what they are asked about.
      batch_size: inputs in one call of a teacher.
      resume: whether to go on with what is there; where nothing is, the directory is begun.
      seconds_between: that rows are in memory only, at the most; what a kill can cost.
      progress: called with the name of a teacher and how many rows of it are done.

    Raises:
      InputError: if the directory is not what it must be or was begun with other inputs or teachers, or outputs are
        not what they must be.
      TeacherError: if a teacher failed.
      CorruptDataError: if what is there already was truncated or altered.
      StorageError: if the disk is full.

    >>> import tempfile
    >>> from mtbkd_jax.adapters import from_callable, make_questions
    >>> questions = make_questions(np.array([[1.0], [2.0], [3.0]]), ids=["a", "b", "c"])
    >>> both_ways = from_callable(lambda inputs: np.hstack([inputs, -inputs]))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     teach(directory, {"both ways": both_ways}, questions, batch_size=2).logits(np.array(["c"]))[0, 0].tolist()
    [3.0, -3.0]
    """
    check_whole("teach", 1, batch_size=batch_size)
    check_not_negative(seconds_between=seconds_between)
    class_names = questions.class_names or next((a.class_names for a in teachers.values() if a.class_names), None)
    columns = {name: _columns(name, adapter.class_names, class_names) for name, adapter in teachers.items()}
    kinds = ", ".join(f"{name}: {adapter.kind}" for name, adapter in teachers.items())
    with TeacherOutputsWriter(
        path,
        list(teachers),
        ids=questions.ids,
        class_names=class_names,
        sources={name: adapter.source for name, adapter in teachers.items()},
        conditions={"SHA-256 of the inputs": _sha256(questions.inputs), "kinds of outputs": kinds},
        resume=resume,
    ) as writer:
        flushed = time.monotonic()
        for name, adapter in teachers.items():
            progress(name, writer.num_appended(name))
            while (start := writer.num_appended(name)) < len(questions.ids):
                rows = slice(start, start + batch_size)
                outputs = _predict(name, adapter, questions.inputs[rows], start)
                outputs = _in_order(outputs, columns[name], str(path), f"outputs of {name} from row {start}")
                writer.append(name, questions.ids[rows], outputs, kind=adapter.kind)
                if time.monotonic() - flushed >= seconds_between:
                    writer.flush()
                    flushed = time.monotonic()
                progress(name, writer.num_appended(name))
        return writer.close()


def _predict(name: str, adapter: Adapter, inputs: Inputs, start: int) -> np.ndarray:
    """Ask a teacher; what its framework raises becomes an error that says of which rows."""
    try:
        return np.asarray(adapter.predict(inputs))
    except MTBKDError:
        raise
    except Exception as error:  # Every framework complains in its own way.
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        what = f"failed on rows {start} to {start + len(inputs) - 1}, which have shape {inputs.shape} ({reason})"
        action = "Correct the teacher or the inputs, and resume: no row that was done is lost."
        raise TeacherError(name, what, action) from error


def _columns(name: str, names: tuple[str, ...] | None, expected: tuple[str, ...] | None) -> list[int] | None:
    """For each class that the directory has, the column of a teacher's outputs that is about it."""
    if names is None or expected is None:
        return None
    if set(names) != set(expected):
        found, all_of = (
            some(sorted(names)),
            f"{some(sorted(expected))}, as the data or the first teacher with names have",
        )
        raise InputError(name, "class_names", found, all_of, "Call the classes by the same names everywhere.")
    return [names.index(of) for of in expected]


def _in_order(outputs: np.ndarray, columns: list[int] | None, where: str, field: str) -> np.ndarray:
    if columns is None or outputs.ndim != 2:  # another number of axes is for the writer to refuse
        return outputs
    check_same_number("classes", outputs.shape[1], len(columns), "as the teacher has class names", where, field)
    return outputs[:, columns]


def _sha256(inputs: Inputs) -> str:
    """Digest of inputs with their type and shape; a memory map is read a block at a time."""
    digest = hashlib.sha256(f"{inputs.dtype.str} {inputs.shape}".encode())
    for start in range(0, len(inputs), _HASHED_ROWS):
        digest.update(np.ascontiguousarray(inputs[start : start + _HASHED_ROWS]).tobytes())
    return digest.hexdigest()

"""Outputs of teachers from several places, in the order of the student's examples and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.checks import Kind, Names, check_class_names, check_same_number, some
from mtbkd_jax.errors import InputError
from mtbkd_jax.rows import Rows
from mtbkd_jax.teacher_files import TeacherFile, read_teacher_file
from mtbkd_jax.teacher_layout import check_teacher_names
from mtbkd_jax.teachers import TeacherOutputs, open_teacher_outputs
from mtbkd_jax.unsaid import MissingTeachers


def open_teachers(
    specs: Sequence[str], *, kind: Kind | None = None, by_rows: bool = False
) -> list[TeacherFile | TeacherOutputs]:
    """Open what a command line names: directories of teacher outputs, and files as ``NAME=FILE``.

    Args:
      specs: each a directory, or what ``read_teacher_file`` takes.
      kind: what the files hold.
      by_rows: whether the outputs stay in the files, see ``read_teacher_file``; those of directories always do.
    """
    return [
        open_teacher_outputs(spec) if Path(spec).is_dir() else read_teacher_file(spec, kind=kind, by_rows=by_rows)
        for spec in specs
    ]


class AlignedTeachers(NamedTuple):
    """Outputs of all teachers for the student's examples.

    Attributes:
      names: of the teachers.
      class_names: in the order of the logits; None where nothing says so.
      logits: in the order of the student's examples; ``Rows`` where they are read by rows. NaN for all classes where a
        teacher was not asked about an example, and for some of them where it gave its most probable ones alone.
      softening: for each teacher, the temperature that its logits were divided by already.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...] | None
    logits: Float[np.ndarray, "examples teachers classes"] | Rows
    softening: Float[np.ndarray, " teachers"]


@dataclass(frozen=True)
class _AlignedRows:
    """Logits of all teachers that are read when they are asked for.

    Attributes:
      teachers: files or directories.
      places: of the student's examples, in each of them.
      class_orders: of each of them.
      shape: of the whole.
      dtype: of the logits.
    """

    teachers: Sequence[TeacherFile | TeacherOutputs]
    places: Sequence[Int[np.ndarray, " examples"]]
    class_orders: Sequence[list[int]]
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __getitem__(self, index: Any) -> Float[np.ndarray, "rows teachers classes"]:
        parts = [
            teacher.logits_at(places[index])[..., order]
            for teacher, places, order in zip(self.teachers, self.places, self.class_orders, strict=True)
        ]
        return np.concatenate(parts, axis=1)


def align_teachers(
    teachers: Sequence[TeacherFile | TeacherOutputs],
    *,
    ids: np.ndarray,
    class_names: Names | None = None,
    by_rows: bool = False,
    missing: MissingTeachers = "refuse",
) -> AlignedTeachers:
    """Bring the outputs of teachers from several places into the order of the student's examples and classes.

    Classes are matched by name where both sides have names, and by their number otherwise.

    Args:
      teachers: files or directories.
      ids: of the student's examples; a teacher may know more examples, and in any order.
      class_names: of the student's data; None takes those of the first teacher that has some.
      by_rows: whether the logits are not to be read yet, since they do not fit in memory.
      missing: what becomes of a teacher that lacks an example: with ``mask`` its logits there are NaN.

    Raises:
      InputError: if there is no teacher, two have the same name, a teacher lacks an example (or with ``mask`` all of
        them), or the classes disagree.
    """
    names = [name for teacher in teachers for name in teacher.names]
    check_teacher_names(names, "teachers")
    class_names, described = _reference_classes(teachers, class_names)
    num_classes = teachers[0].num_classes if class_names is None else len(class_names)
    shape = len(ids), len(names), num_classes
    orders = [_class_order(teacher, class_names, num_classes, described) for teacher in teachers]
    logits: np.ndarray | Rows
    if by_rows:
        logits = _AlignedRows(teachers, [teacher.places(ids, missing) for teacher in teachers], orders, shape)
    else:
        logits, column = np.empty(shape, np.float32), 0
        for teacher, order in zip(teachers, orders, strict=True):
            said = teacher.logits_at(teacher.places(ids, missing))
            logits[:, column : column + len(teacher.names)] = said[..., order]
            column += len(teacher.names)
    softening = np.array([value for teacher in teachers for value in teacher.softening], np.float32)
    return AlignedTeachers(tuple(names), class_names, logits, softening)


def _reference_classes(
    teachers: Sequence[TeacherFile | TeacherOutputs], class_names: Names | None
) -> tuple[tuple[str, ...] | None, str]:
    """The class names that all have to agree with, and whose they are."""
    if class_names is not None:
        return check_class_names(class_names, "data"), "the data"
    for teacher in teachers:
        if teacher.class_names is not None:
            return teacher.class_names, teacher.where
    return None, teachers[0].where


def _class_order(
    teacher: TeacherFile | TeacherOutputs, class_names: tuple[str, ...] | None, num_classes: int, described: str
) -> list[int]:
    """For each class, the column of the teacher's logits that is about it."""
    check_same_number("classes", teacher.num_classes, num_classes, f"as in {described}", teacher.where, "classes")
    if class_names is None or teacher.class_names is None:
        return list(range(num_classes))
    if unknown := sorted(set(teacher.class_names) - set(class_names)):
        missing = sorted(set(class_names) - set(teacher.class_names))
        expected = f"the names in {described}, of which {some(missing)} are missing"
        action = "Call the classes by the same names everywhere."
        raise InputError(teacher.where, "class_names", f"names that only it has: {some(unknown)}", expected, action)
    return [teacher.class_names.index(name) for name in class_names]

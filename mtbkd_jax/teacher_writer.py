"""Writing teacher outputs: in parts that may be interrupted, or at once."""

import hashlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import ArrayLike

from mtbkd_jax import storage
from mtbkd_jax.checks import (
    Kind,
    Names,
    as_logits,
    check_class_names,
    check_ids,
    check_num_examples,
    check_same,
    check_same_number,
    check_softening,
    some,
)
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.teacher_layout import (
    FORMAT,
    MANIFEST,
    ROWS_AT_A_TIME,
    TOP_CLASSES,
    VERSION,
    as_bytes,
    blocks,
    check_manifest,
    check_teacher_names,
    check_types,
    create_stored_rows,
    logits_path,
)
from mtbkd_jax.teachers import TeacherOutputs, open_teacher_outputs
from mtbkd_jax.unsaid import check_sparse

_UNFINISHED, _UNFINISHED_FORMAT = "unfinished.json", "mtbkd unfinished teacher outputs"


class TeacherOutputsWriter:
    """Writes a directory of teacher outputs in parts, each teacher at its own pace; one that was interrupted can go on.

    Rows are kept in memory until there are 4,096 of a teacher, or until ``flush``. As a context manager it closes
    the directory at the end; an error leaves it unfinished, with all rows that were appended before. Until it is closed
    or has failed, other writers are kept out of the directory.

    Args:
      path: a new or an empty directory, or with ``resume`` an unfinished one.
      names: of the teachers.
      ids: of all examples, in the order in which their outputs will be appended.
      class_names: in the order of the logits.
      softening: for each teacher by name, the temperature that its logits were divided by already; 1 if not given.
      sources: for each teacher by name, where its outputs came from, in words.
      conditions: whatever else the outputs depend on, by name, in words; the manifest has them too.
      sparse: names of teachers that gave their most probable classes alone: log probabilities, and NaN for the others.
      resume: whether to go on with what is there; where nothing is, the directory is begun, and where it is finished no
        row is missing.

    Raises:
      InputError: if the directory is not empty and not to be resumed, was begun with other arguments, or another
        process writes it; if there is no teacher, a name is missing or there twice, or an option is for a teacher that
        is not there.
      CorruptDataError: if the rows that are there already were truncated or altered.
    """

    def __init__(
        self,
        path: str | Path,
        names: Sequence[str],
        *,
        ids: Names,
        class_names: Names | None = None,
        softening: Mapping[str, float] | None = None,
        sources: Mapping[str, str] | None = None,
        conditions: Mapping[str, str] | None = None,
        sparse: Collection[str] = (),
        resume: bool = False,
    ):
        where = str(path)
        self._path = Path(path)
        self._plan = _Plan.checked(where, names, ids, class_names, softening, sources, conditions, sparse)
        self._num_classes = None if self._plan.class_names is None else len(self._plan.class_names)
        self._rows = {name: _Rows(logits_path(self._path, number)) for number, name in enumerate(self._plan.names)}
        self._lock = ExitStack()
        self._is_finished = resume and (self._path / MANIFEST).exists()
        if self._is_finished:
            self._check_finished()
            return
        left_by_a_kill = {self._path / storage.LOCK, self._path / (_UNFINISHED + ".part")}
        is_new = not (self._path / _UNFINISHED).exists()
        if is_new and not (self._path.is_dir() and set(self._path.iterdir()) <= left_by_a_kill):
            storage.new_directory(self._path)
        with ExitStack() as until_begun:
            until_begun.enter_context(storage.locked(self._path))
            if (self._path / _UNFINISHED).exists():
                self._take_up(resume)
            else:
                self._write_record()
            self._lock = until_begun.pop_all()

    def num_appended(self, name: str) -> int:
        """How many rows of a teacher there are, those of an interrupted writer included."""
        return self._rows[name].num_appended

    def append(self, name: str, ids: Names, logits: ArrayLike, *, kind: Kind | None = None) -> None:
        """Add the next rows of one teacher; they are on the disk when it is closed, or after ``flush``.

        Args:
          name: of the teacher.
          ids: of the rows: the next ones in the order that was given to the writer.
          logits: ``[rows, classes]``, or probabilities where ``kind`` says so.
          kind: see ``checks.as_logits``.

        Raises:
          InputError: if the ids are others, or the logits are not what they must be.
          StorageError: if the disk is full.
        """
        where = str(self._path)
        _check_known([name], self._plan.names, where, "teacher")
        start = self._rows[name].num_appended
        field = f"logits of {name} from row {start}"
        is_sparse = name in self._plan.sparse
        values = check_sparse(logits, where, field) if is_sparse else as_logits(logits, kind, where, field)
        self._check_order(name, check_ids(ids, where, f"ids of {name}"), slice(start, start + len(values)))
        if self._num_classes is None:
            self._num_classes = values.shape[1]
        described = "as the class names or the other teachers say"
        check_same_number("classes", values.shape[1], self._num_classes, described, where, field)
        self._rows[name].pending.append(values)
        if self._rows[name].num_appended // ROWS_AT_A_TIME > self._rows[name].num_stored // ROWS_AT_A_TIME:
            self._store(name)

    def flush(self) -> None:
        """Put all rows so far on the disk.

        Raises:
          StorageError: if the disk is full.
        """
        for name, rows in self._rows.items():
            if rows.pending:
                self._store(name)

    def close(self) -> TeacherOutputs:
        """Finish the directory and open it.

        Raises:
          InputError: if rows of a teacher are missing.
        """
        if self._is_finished:
            return open_teacher_outputs(self._path)
        plan = self._plan
        for name, rows in self._rows.items():
            if rows.num_appended < len(plan.ids):
                found, expected = f"{rows.num_appended} rows", f"{len(plan.ids)}, as many as there are ids"
                raise InputError(str(self._path), f"logits of {name}", found, expected, "Append the missing rows.")
        self.flush()
        encoded = plan.encoded_ids
        # An interrupted writer may have come as far as this before.
        shutil.rmtree(self._path / "ids", ignore_errors=True)
        storage.write(create_stored_rows(self._path / "ids", encoded.shape, np.uint8), slice(0, len(encoded)), encoded)
        teachers = [
            teacher | {"sha256": rows.digest.hexdigest()}
            for teacher, rows in zip(plan.to_json()["teachers"], self._rows.values(), strict=True)
        ]
        manifest = plan.to_json() | {"num_classes": self._num_classes, "teachers": teachers}
        storage.write_manifest(self._path / MANIFEST, manifest, format_name=FORMAT, version=plan.version)
        self._remove_own_files()
        self._lock.close()
        self._is_finished = True
        return open_teacher_outputs(self._path)

    def __enter__(self) -> "TeacherOutputsWriter":
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the directory; after an error, only put what there is on the disk, and let others write there."""
        if error is None:
            with self._lock:
                self.close()
            return
        with self._lock, suppress(StorageError):  # what went wrong first is what is reported
            self.flush()
            if not (self._path / "logits").exists():
                # Refused before anything was written: the same path will do when the mistake is corrected.
                self._remove_own_files()

    def _check_finished(self) -> None:
        """Make sure that a finished directory is the one that is asked for."""
        manifest = storage.read_manifest(self._path / MANIFEST, format_name=FORMAT, version=VERSION)
        check_manifest(manifest, str(self._path / MANIFEST))
        teachers = [{key: of[key] for key in of if key != "sha256"} for of in manifest["teachers"]]
        found, expected = manifest | {"teachers": teachers}, self._plan.to_json()
        check_same(str(self._path / MANIFEST), {field: found.get(field) for field in expected}, expected)
        for rows in self._rows.values():
            rows.num_stored = len(self._plan.ids)

    def _take_up(self, resume: bool) -> None:
        """Go on with what an interrupted writer has left."""
        where = str(self._path)
        if not resume:
            found, expected = "teacher outputs that were begun", "a new or an empty directory"
            action = "Resume them (`--resume`), choose another path, or remove the directory yourself."
            raise InputError(where, "output directory", found, expected, action)
        file = str(self._path / _UNFINISHED)
        record = storage.read_manifest(self._path / _UNFINISHED, format_name=_UNFINISHED_FORMAT, version=VERSION)
        check_types(record, {"plan": dict, "num_classes": (int, type(None)), "stored": list}, file)
        check_same(file, record["plan"], self._plan.to_json())
        by_number = dict(enumerate(record["stored"]))
        check_types(by_number, dict.fromkeys(range(len(self._rows)), dict), file, "stored.")
        for number, stored in by_number.items():
            check_types(stored, {"num_rows": int, "sha256": str}, file, f"stored.{number}.")
        self._num_classes = record["num_classes"]
        for (name, rows), stored in zip(self._rows.items(), by_number.values(), strict=True):
            if stored["num_rows"]:
                rows.recover(stored["num_rows"], (len(self._plan.ids), self._num_classes))
            if (found := rows.digest.hexdigest()) != stored["sha256"]:
                field, found = f"logits of {name}", f"content with the SHA-256 digest {found}"
                raise CorruptDataError(where, field, found, stored["sha256"], "Begin anew in another directory.")

    def _store(self, name: str) -> None:
        """Put the rows of one teacher on the disk, and then say so."""
        self._rows[name].store(len(self._plan.ids))
        self._write_record()

    def _remove_own_files(self) -> None:
        """Remove what only a writer needs."""
        for name in (_UNFINISHED, storage.LOCK):
            (self._path / name).unlink(missing_ok=True)

    def _write_record(self) -> None:
        stored = [{"num_rows": rows.num_stored, "sha256": rows.digest.hexdigest()} for rows in self._rows.values()]
        record = {"plan": self._plan.to_json(), "num_classes": self._num_classes, "stored": stored}
        version = self._plan.version
        storage.write_manifest(self._path / _UNFINISHED, record, format_name=_UNFINISHED_FORMAT, version=version)

    def _check_order(self, name: str, ids: np.ndarray, rows: slice) -> None:
        """Check that these are the ids whose turn it is."""
        where, field, expected_ids = str(self._path), f"ids of {name}", self._plan.ids
        if len(ids) != rows.stop - rows.start or rows.stop > len(expected_ids):
            found = f"{len(ids)} ids for {rows.stop - rows.start} rows of logits from row {rows.start}"
            expected = f"one id for each row, and {len(expected_ids)} rows in all"
            raise InputError(where, field, found, expected, "Give the logits of just these examples.")
        if (other := np.flatnonzero(ids != expected_ids[rows])).size:
            row = rows.start + other[0]
            expected = f"{str(expected_ids[row])!r}, as all teachers have to be in the order of the writer's ids"
            action = "Put the rows in that order; a file with ids (NPZ or CSV) is put in order when it is read."
            raise InputError(where, field, f"{str(ids[other[0]])!r} in row {row}", expected, action)


@dataclass(frozen=True)
class _Plan:
    """What a directory is to hold, known before the first row."""

    names: tuple[str, ...]
    ids: np.ndarray
    class_names: tuple[str, ...] | None
    softening: Mapping[str, float]
    sources: Mapping[str, str]
    conditions: Mapping[str, str]
    sparse: frozenset[str] = frozenset()

    @classmethod
    def checked(
        cls,
        where: str,
        names: Sequence[str],
        ids: Names,
        class_names: Names | None,
        softening: Mapping[str, float] | None,
        sources: Mapping[str, str] | None,
        conditions: Mapping[str, str] | None,
        sparse: Collection[str] = (),
    ) -> "_Plan":
        """Check the arguments of ``TeacherOutputsWriter``."""
        check_teacher_names(names, where)
        for field, option in {"softening": softening, "sources": sources, "sparse": sparse}.items():
            _check_known(option or {}, names, where, field)
        checked_ids = check_ids(ids, where)
        check_num_examples(len(checked_ids), where)
        softening = dict.fromkeys(names, 1.0) | dict(softening or {})
        return cls(
            tuple(names),
            checked_ids,
            None if class_names is None else check_class_names(class_names, where),
            {name: check_softening(value, where, f"softening of {name}") for name, value in softening.items()},
            dict.fromkeys(names, "") | dict(sources or {}),
            dict(conditions or {}),
            frozenset(sparse),
        )

    @property
    def version(self) -> int:
        """Of the format: the first that has all that is needed, so that what could read it before still can."""
        return VERSION if self.sparse else 1

    @cached_property
    def encoded_ids(self) -> np.ndarray:
        """The ids as they are stored."""
        return as_bytes(self.ids)

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "num_examples": len(self.ids),
            "class_names": None if self.class_names is None else list(self.class_names),
            "id_bytes": self.encoded_ids.shape[1],
            "ids_sha256": self._ids_sha256,
            "teachers": [
                {"name": name, "softening": self.softening[name], "source": self.sources[name]}
                | ({"gives": TOP_CLASSES} if name in self.sparse else {})
                for name in self.names
            ],
            "conditions": dict(self.conditions),
        }

    @cached_property
    def _ids_sha256(self) -> str:
        return hashlib.sha256(self.encoded_ids.tobytes()).hexdigest()


class _Rows:
    """The logits of one teacher on their way to the disk.

    Attributes:
      pending: rows that are in memory only.
      num_stored: how many rows are on the disk.
      digest: of these.
    """

    def __init__(self, path: Path):
        self.pending: list[np.ndarray] = []
        self.num_stored = 0
        self.digest = hashlib.sha256()
        self._path = path
        self._array: ts.TensorStore | None = None

    @property
    def num_appended(self) -> int:
        """How many rows there are, on the disk and in memory."""
        return self.num_stored + sum(map(len, self.pending))

    def store(self, num_examples: int) -> None:
        """Put what is pending on the disk, in an array for that many examples."""
        values = np.concatenate(self.pending)
        if self._array is None:
            # What was written just before a kill, and never counted, is written again.
            shutil.rmtree(self._path, ignore_errors=True)
            self._array = create_stored_rows(self._path, (num_examples, values.shape[1]), np.float32)
        storage.write(self._array, slice(self.num_stored, self.num_stored + len(values)), values)
        self.digest.update(values.tobytes())
        self.num_stored += len(values)
        self.pending = []

    def recover(self, num_rows: int, shape: tuple[int, int]) -> None:
        """Take up the first rows that are on the disk."""
        self._array = storage.open_array(self._path, shape=shape, dtype=np.float32)
        for values in blocks(self._array, num_rows):
            self.digest.update(values.tobytes())
        self.num_stored = num_rows


def write_teacher_outputs(
    path: str | Path,
    teachers: Mapping[str, ArrayLike | Callable[[Any], ArrayLike]],
    *,
    ids: Names,
    inputs: Any = None,
    class_names: Names | None = None,
    softening: Mapping[str, float] | None = None,
    sources: Mapping[str, str] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    sparse: Collection[str] = (),
) -> TeacherOutputs:
    """Write the outputs of several teachers to a new directory, and open it.

    Args:
      path: a new or an empty directory.
      teachers: by name, an array of the outputs of all examples in the order of ``ids``, or a function from a slice of
        ``inputs`` to their outputs. What files hold is brought into order by ``align_teachers`` first.
      ids: of the examples.
      inputs: in the order of ``ids``; functions are called with 4,096 examples at a time.
      class_names: in the order of the logits.
      softening: for each teacher by name, the temperature that its logits were divided by already; 1 if not given.
      sources: for each teacher by name, where its outputs came from, in words.
      kinds: for each teacher by name, what its outputs are; see ``checks.as_logits``.
      sparse: as ``TeacherOutputsWriter`` takes it.

    Raises:
      InputError: if the teachers disagree with the ids or with each other, or their outputs are not what they must be.
      StorageError: if the disk is full.

    >>> import tempfile
    >>> logits, probs = [[0.0, 1.0], [2.0, -1.0]], [[0.5, 0.5], [0.9, 0.1]]
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     teachers = {"network": logits, "forest": probs}
    ...     outputs = write_teacher_outputs(directory, teachers, ids=["a", "b"], kinds={"forest": "probabilities"})
    ...     print(outputs.names, outputs.logits(np.array(["b"])).shape)
    ('network', 'forest') (1, 2, 2)
    """
    where = str(path)
    _check_known(kinds or {}, list(teachers), where, "kinds")
    checked_ids = check_ids(ids, where)
    arrays = {f"logits of {name}": teacher for name, teacher in teachers.items() if not callable(teacher)}
    if inputs is not None:
        arrays["inputs"] = inputs
    elif len(arrays) < len(teachers):
        action = "Give `inputs`, in the order of the ids."
        raise InputError(where, "inputs", "none", "the inputs that teachers are called with", action)
    for field, values in arrays.items():
        check_same_number("rows", (*np.shape(values), 0)[0], len(checked_ids), "as there are ids", where, field)
    with TeacherOutputsWriter(
        path,
        list(teachers),
        ids=checked_ids,
        class_names=class_names,
        softening=softening,
        sources=sources,
        sparse=sparse,
    ) as writer:
        for name, teacher in teachers.items():
            outputs = teacher if callable(teacher) else np.asarray(teacher).__getitem__
            for start in range(0, len(checked_ids), ROWS_AT_A_TIME):
                rows = slice(start, start + ROWS_AT_A_TIME)
                values = outputs(inputs[rows] if callable(teacher) else rows)
                writer.append(name, checked_ids[rows], values, kind=(kinds or {}).get(name))
        return writer.close()


def _check_known(names: Any, known: Sequence[str], where: str, field: str) -> None:
    """Check that only teachers that are there are named."""
    if unknown := sorted(set(names) - set(known)):
        raise InputError(where, field, some(unknown), f"one of {', '.join(map(repr, known))}", "Check the spelling.")

"""Teacher outputs: the logits of several teachers by example id, in a directory that says what it holds.

A directory holds ``ids`` and, for each teacher, ``logits/<number>`` as zarr3 arrays with checksums, and a manifest:
the class names, and for each teacher its name, the softening already applied, where it came from, and the SHA-256
digest of its logits. The manifest is written last: a directory without one is unfinished, and a record in it says how
many rows of each teacher are on the disk, and their digest, so that writing can go on where it was interrupted.

The logits of an example stand for the probabilities ``softmax(logits)``; softening by a temperature τ (Hinton et al.
2015) makes them ``softmax(logits / τ)``. Outputs are matched to the student's data by id, and never by position.

Of a teacher that gave its most probable classes alone the log probabilities are stored, and NaN for the other classes
(``unsaid``); the manifest says so, and its version is 2. Directories without such a teacher are of version 1.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from mtbkd_jax import storage
from mtbkd_jax.checks import (
    Kind,
    Names,
    as_logits,
    check_class_names,
    check_finite,
    check_ids,
    check_num_classes,
    check_num_examples,
    check_positive,
    check_same,
    check_same_number,
    check_softening,
    check_whole,
    some,
)
from mtbkd_jax.data import IdIndex
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.rows import Rows
from mtbkd_jax.teacher_files import TeacherFile, read_teacher_file
from mtbkd_jax.types import Scalar
from mtbkd_jax.unsaid import MissingTeachers, check_sparse, said_at

_FORMAT = "mtbkd teacher outputs"
_VERSION = 2
_MANIFEST = "teachers.json"
_UNFINISHED, _UNFINISHED_FORMAT = "unfinished.json", "mtbkd unfinished teacher outputs"
_ROWS_AT_A_TIME = 4096
_TOP_CLASSES = "log probabilities of the most probable classes"


def softened_probs(
    logits: Float[Array | np.ndarray, "*batch teachers classes"],
    temperature: float | Scalar,
    softening: Float[Array | np.ndarray, " teachers"],
) -> Float[Array, "*batch teachers classes"]:
    """Probabilities at a temperature τ: ``softmax(logits · softening / τ)``.

    Args:
      logits: as stored.
      temperature: τ, relative to the teacher's own logits; 1 undoes any softening.
      softening: the temperature that the stored logits were divided by already; 1 for none.

    Raises:
      InputError: if the temperature is not positive.
    """
    check_positive(temperature=temperature)
    factor = jnp.broadcast_to(jnp.asarray(softening / temperature)[:, None], logits.shape)
    return jax.nn.softmax(logits * factor, axis=-1)


class TeacherOutputs:
    """The outputs of several teachers in a directory, opened by ``open_teacher_outputs``.

    Attributes:
      where: the directory.
      names: of the teachers.
      class_names: in the order of the logits; None where nobody gave any.
      num_classes: how many classes there are.
      num_examples: how many examples there are.
      softening: for each teacher, the temperature that its logits were divided by already.
      sources: for each teacher, where its outputs came from, in words.
      is_sparse: for each teacher, whether it gave its most probable classes alone, and NaN stands for the others.
      conditions: whatever else the outputs depend on, by name, in words.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]):
        self.where = str(path)
        teachers = manifest["teachers"]
        self.names: tuple[str, ...] = tuple(teacher["name"] for teacher in teachers)
        self.softening: tuple[float, ...] = tuple(teacher["softening"] for teacher in teachers)
        self.sources: tuple[str, ...] = tuple(teacher["source"] for teacher in teachers)
        self.is_sparse: tuple[bool, ...] = tuple("gives" in teacher for teacher in teachers)
        self.conditions: dict[str, str] = manifest.get("conditions") or {}
        self.class_names = None if manifest["class_names"] is None else tuple(manifest["class_names"])
        self.num_classes: int = manifest["num_classes"]
        self.num_examples: int = manifest["num_examples"]
        self._path = path
        self._manifest = manifest

    @cached_property
    def ids(self) -> np.ndarray:
        """The ids of all examples, in the order in which they are stored."""
        return check_ids(_text(storage.read(self._stored_ids, slice(0, self.num_examples)), self.where), self.where)

    def logits(self, ids: np.ndarray) -> Float[np.ndarray, "examples teachers classes"]:
        """Read the logits of some examples, in the order of their ids; whole blocks of 4,096 rows are read.

        Raises:
          InputError: if an id is not there.
          CorruptDataError: if what has to be read was truncated or altered.
        """
        return self.logits_at(self.places(ids))

    def places(self, ids: np.ndarray, missing: MissingTeachers = "refuse") -> Int[np.ndarray, " examples"]:
        """Where the logits of some examples are stored, in the order of their ids.

        Args:
          ids: of the examples.
          missing: whether an id may be absent; its place is -1 then.

        Raises:
          InputError: if an id is not there, or with ``mask`` none of them is.
        """
        return self._index.rows(ids, self.where, missing)

    def logits_at(self, rows: Int[np.ndarray, " examples"]) -> Float[np.ndarray, "examples teachers classes"]:
        """Read the logits of the examples at some ``places``; NaN where there are none.

        Raises:
          CorruptDataError: if what has to be read was truncated or altered.
        """
        logits = np.empty((len(rows), len(self.names), self.num_classes), np.float32)
        for teacher in range(len(self.names)):
            logits[:, teacher] = said_at(rows, partial(self._read, teacher), self.num_classes)
        return logits

    def _read(self, teacher: int, rows: Int[np.ndarray, " examples"]) -> Float[np.ndarray, "examples classes"]:
        check = check_sparse if self.is_sparse[teacher] else check_finite
        return check(storage.read(self._stored_logits[teacher], rows), self.where, f"logits of {self.names[teacher]}")

    def verify(self) -> None:
        """Read everything once and compare it with the digests of the manifest.

        Raises:
          CorruptDataError: if anything was truncated or altered.
        """
        expected = {"ids": self._manifest["ids_sha256"]}
        expected |= {f"logits of {teacher['name']}": teacher["sha256"] for teacher in self._manifest["teachers"]}
        for (field, digest), stored in zip(expected.items(), (self._stored_ids, *self._stored_logits), strict=True):
            found = hashlib.sha256()
            for values in _blocks(stored, self.num_examples):
                found.update(values.tobytes())
            if found.hexdigest() != digest:
                described = f"content with the SHA-256 digest {found.hexdigest()}"
                raise CorruptDataError(self.where, field, described, digest, storage.COPY_AGAIN)

    @cached_property
    def _index(self) -> "IdIndex":
        return IdIndex(self.ids)

    @cached_property
    def _stored_ids(self) -> ts.TensorStore:
        return _open_rows(self._path / "ids", (self.num_examples, self._manifest["id_bytes"]), np.uint8)

    @cached_property
    def _stored_logits(self) -> list[ts.TensorStore]:
        shape = (self.num_examples, self.num_classes)
        paths = [_logits_path(self._path, teacher) for teacher in range(len(self.names))]
        return [_open_rows(path, shape, np.float32) for path in paths]


def open_teacher_outputs(path: str | Path) -> TeacherOutputs:
    """Open a directory of teacher outputs; only its manifest is read.

    Raises:
      InputError: if it is no finished directory of teacher outputs.
      CorruptDataError: if its manifest was altered.
    """
    manifest = storage.read_manifest(Path(path) / _MANIFEST, format_name=_FORMAT, version=_VERSION)
    _check_manifest(manifest, str(Path(path) / _MANIFEST))
    return TeacherOutputs(Path(path), manifest)


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
        self._rows = {name: _Rows(_logits_path(self._path, number)) for number, name in enumerate(self._plan.names)}
        self._lock = ExitStack()
        self._is_finished = resume and (self._path / _MANIFEST).exists()
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
        if self._rows[name].num_appended // _ROWS_AT_A_TIME > self._rows[name].num_stored // _ROWS_AT_A_TIME:
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
        storage.write(_create_rows(self._path / "ids", encoded.shape, np.uint8), slice(0, len(encoded)), encoded)
        teachers = [
            teacher | {"sha256": rows.digest.hexdigest()}
            for teacher, rows in zip(plan.to_json()["teachers"], self._rows.values(), strict=True)
        ]
        manifest = plan.to_json() | {"num_classes": self._num_classes, "teachers": teachers}
        storage.write_manifest(self._path / _MANIFEST, manifest, format_name=_FORMAT, version=plan.version)
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
        manifest = storage.read_manifest(self._path / _MANIFEST, format_name=_FORMAT, version=_VERSION)
        teachers = [{key: of[key] for key in of if key != "sha256"} for of in manifest["teachers"]]
        found, expected = manifest | {"teachers": teachers}, self._plan.to_json()
        check_same(str(self._path / _MANIFEST), {field: found.get(field) for field in expected}, expected)
        for rows in self._rows.values():
            rows.num_stored = len(self._plan.ids)

    def _take_up(self, resume: bool) -> None:
        """Go on with what an interrupted writer has left."""
        where = str(self._path)
        if not resume:
            found, expected = "teacher outputs that were begun", "a new or an empty directory"
            action = "Resume them (`--resume`), choose another path, or remove the directory yourself."
            raise InputError(where, "output directory", found, expected, action)
        record = storage.read_manifest(self._path / _UNFINISHED, format_name=_UNFINISHED_FORMAT, version=_VERSION)
        check_same(str(self._path / _UNFINISHED), record["plan"], self._plan.to_json())
        self._num_classes = record["num_classes"]
        for (name, rows), stored in zip(self._rows.items(), record["stored"], strict=True):
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
        _check_teacher_names(names, where)
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
        return _VERSION if self.sparse else 1

    @cached_property
    def encoded_ids(self) -> np.ndarray:
        """The ids as they are stored."""
        return _bytes(self.ids)

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "num_examples": len(self.ids),
            "class_names": None if self.class_names is None else list(self.class_names),
            "id_bytes": self.encoded_ids.shape[1],
            "ids_sha256": self._ids_sha256,
            "teachers": [
                {"name": name, "softening": self.softening[name], "source": self.sources[name]}
                | ({"gives": _TOP_CLASSES} if name in self.sparse else {})
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
            self._array = _create_rows(self._path, (num_examples, values.shape[1]), np.float32)
        storage.write(self._array, slice(self.num_stored, self.num_stored + len(values)), values)
        self.digest.update(values.tobytes())
        self.num_stored += len(values)
        self.pending = []

    def recover(self, num_rows: int, shape: tuple[int, int]) -> None:
        """Take up the first rows that are on the disk."""
        self._array = storage.open_array(self._path, shape=shape, dtype=np.float32)
        for values in _blocks(self._array, num_rows):
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
            for start in range(0, len(checked_ids), _ROWS_AT_A_TIME):
                rows = slice(start, start + _ROWS_AT_A_TIME)
                values = outputs(inputs[rows] if callable(teacher) else rows)
                writer.append(name, checked_ids[rows], values, kind=(kinds or {}).get(name))
        return writer.close()


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
    _check_teacher_names(names, "teachers")
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


def _check_teacher_names(names: Sequence[str], where: str) -> None:
    if not names:
        raise InputError(where, "teachers", "none", "one teacher or more", "Give the outputs of a teacher.")
    if "" in names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1 or not name})
        action = "Give every teacher a name of its own."
        raise InputError(where, "teachers", f"names more than once or empty: {some(twice)}", "each name once", action)


def _check_known(names: Any, known: Sequence[str], where: str, field: str) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise InputError(where, field, some(unknown), f"one of {', '.join(map(repr, known))}", "Check the spelling.")


def _logits_path(path: Path, teacher: int) -> Path:
    return path / "logits" / str(teacher)


def _create_rows(path: Path, shape: tuple[int, ...], dtype: Any) -> ts.TensorStore:
    return storage.create_array(path, shape=shape, dtype=dtype, chunk_shape=(_ROWS_AT_A_TIME, *shape[1:]))


def _blocks(array: ts.TensorStore, num_rows: int) -> Iterator[np.ndarray]:
    """The first rows of an array, as many at a time as are stored in one file."""
    for start in range(0, num_rows, _ROWS_AT_A_TIME):
        yield storage.read(array, slice(start, min(start + _ROWS_AT_A_TIME, num_rows)))


def _bytes(ids: np.ndarray) -> np.ndarray:
    """Text as UTF-8, ``[examples, bytes]``, padded by zeros."""
    encoded = np.strings.encode(ids, "utf-8")
    return encoded.view(np.uint8).reshape(len(ids), -1)


def _text(encoded: np.ndarray, where: str) -> np.ndarray:
    try:
        return np.strings.decode(np.ascontiguousarray(encoded).view(f"S{encoded.shape[1]}")[:, 0], "utf-8")
    except UnicodeDecodeError as error:
        raise CorruptDataError(where, "ids", f"bytes ({error})", "UTF-8", storage.COPY_AGAIN) from error


def _check_manifest(manifest: Mapping[str, Any], where: str) -> None:
    """Check that a manifest is what the writer makes: whoever altered one may have renewed its digest as well."""
    of_all: dict[str, type | tuple[type, ...]] = {
        "num_examples": int,
        "num_classes": int,
        "id_bytes": int,
        "ids_sha256": str,
        "class_names": (list, type(None)),
        "teachers": list,
        "conditions": (dict, type(None)),
    }
    of_teacher: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "softening": (int, float),
        "source": str,
        "sha256": str,
    }
    _check_types(manifest, of_all, where, "")
    for number, teacher in enumerate(manifest["teachers"]):
        _check_types(teacher, of_teacher, where, f"teachers.{number}.")
        check_softening(teacher["softening"], where)
        if (gives := teacher.get("gives", _TOP_CLASSES)) != _TOP_CLASSES:
            field = f"teachers.{number}.gives"
            raise CorruptDataError(where, field, f"{gives!r:.80}", repr(_TOP_CLASSES), storage.COPY_AGAIN)
    _check_teacher_names([teacher["name"] for teacher in manifest["teachers"]], where)
    check_num_examples(manifest["num_examples"], where)
    check_num_classes(manifest["num_classes"], where)
    check_whole(where, 1, id_bytes=manifest["id_bytes"])
    if manifest["class_names"] is not None:
        by_number = dict(enumerate(manifest["class_names"]))
        _check_types(by_number, dict.fromkeys(by_number, str), where, "class_names.")
        named = check_class_names(manifest["class_names"], where)
        check_same_number("names", len(named), manifest["num_classes"], "as there are classes", where, "class_names")


def _check_types(found: Any, expected: Mapping[Any, type | tuple[type, ...]], where: str, prefix: str) -> None:
    for key, kinds in expected.items():
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, kinds) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise CorruptDataError(where, f"{prefix}{key}", f"{value!r:.80}", names, storage.COPY_AGAIN)


def _open_rows(path: Path, shape: tuple[int, int], dtype: Any) -> ts.TensorStore:
    """Open an array that the writer made, and make sure that it is stored as it is: plain, in blocks, and all there.

    Memory is taken for as many rows as a manifest says there are, so that they have to be on the disk.
    """
    array = storage.open_array(path, shape=shape, dtype=dtype)
    codecs = [codec["name"] for codec in array.spec().to_json()["metadata"]["codecs"]]
    found = codecs, array.chunk_layout.write_chunk.shape
    expected = ["bytes", "crc32c"], (_ROWS_AT_A_TIME, *shape[1:])
    if found != expected:
        raise CorruptDataError(str(path), "codecs and blocks", f"{found}", f"{expected}", storage.COPY_AGAIN)
    stored, needed = storage.bytes_of_files(path), shape[0] * shape[1] * np.dtype(dtype).itemsize
    if stored < needed:
        raise CorruptDataError(str(path), "blocks", f"{stored} bytes", f"{needed} or more", storage.COPY_AGAIN)
    return array

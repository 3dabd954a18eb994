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
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jaxtyping import Array, Float, Int

from mtbkd_jax import storage
from mtbkd_jax.checks import check_finite, check_ids, check_positive
from mtbkd_jax.data import IdIndex
from mtbkd_jax.errors import CorruptDataError
from mtbkd_jax.teacher_layout import (
    FORMAT,
    MANIFEST,
    VERSION,
    as_text,
    blocks,
    check_manifest,
    logits_path,
    open_stored_rows,
)
from mtbkd_jax.types import Scalar
from mtbkd_jax.unsaid import MissingTeachers, check_sparse, said_at


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
        return check_ids(as_text(storage.read(self._stored_ids, slice(0, self.num_examples)), self.where), self.where)

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
            for values in blocks(stored, self.num_examples):
                found.update(values.tobytes())
            if found.hexdigest() != digest:
                described = f"content with the SHA-256 digest {found.hexdigest()}"
                raise CorruptDataError(self.where, field, described, digest, storage.COPY_AGAIN)

    @cached_property
    def _index(self) -> "IdIndex":
        return IdIndex(self.ids)

    @cached_property
    def _stored_ids(self) -> ts.TensorStore:
        return open_stored_rows(self._path / "ids", (self.num_examples, self._manifest["id_bytes"]), np.uint8)

    @cached_property
    def _stored_logits(self) -> list[ts.TensorStore]:
        shape = (self.num_examples, self.num_classes)
        paths = [logits_path(self._path, teacher) for teacher in range(len(self.names))]
        return [open_stored_rows(path, shape, np.float32) for path in paths]


def open_teacher_outputs(path: str | Path) -> TeacherOutputs:
    """Open a directory of teacher outputs; only its manifest is read.

    Raises:
      InputError: if it is no finished directory of teacher outputs.
      CorruptDataError: if its manifest was altered.
    """
    manifest = storage.read_manifest(Path(path) / MANIFEST, format_name=FORMAT, version=VERSION)
    check_manifest(manifest, str(Path(path) / MANIFEST))
    return TeacherOutputs(Path(path), manifest)

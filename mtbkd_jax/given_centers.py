"""Centers that are given and not distilled: parameters of the student's own architecture, from files.

They come in one of two forms, and nothing in either is ever unpickled:

- A safetensors file: one tensor for each leaf, named by the keys that lead to it, joined by dots ("Dense_0.kernel").
- An Orbax checkpoint: the directory of the tree itself.

Shapes and types are compared with the student's before any number is read, and the numbers must be finite.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from mtbkd_jax import storage
from mtbkd_jax.checks import check_layout, check_params, described, layout_of
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.tree import named_leaves
from mtbkd_jax.types import Params

_SAFETENSORS_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


def read_params(path: str | Path, template: PyTree) -> Params:
    """Read parameters from a safetensors file or from an Orbax checkpoint.

    Args:
      path: the file, or the directory of the checkpoint.
      template: what has the structure, shapes and types that are expected: parameters, or
        ``jax.eval_shape(student.init, key)``, which computes none.

    Raises:
      InputError: if there is no such file, or its tree, a shape or a type is not the template's, or a number is NaN or
        infinite.
      CorruptDataError: if the file was truncated or altered, or is something else.
    """
    path = Path(path)
    if path.is_dir():
        params = _read_orbax(path, template)
    elif path.is_file():
        params = _read_safetensors(path, template)
    else:
        found = "something that is neither" if path.exists() else "nothing"
        expected = "a safetensors file or the directory of an Orbax checkpoint"
        raise InputError(str(path), "file", found, expected, "Check the path.")
    check_params(params, template, str(path))
    return params


def write_params(path: str | Path, params: Params) -> None:
    """Write parameters to a new safetensors file, as ``read_params`` reads them.

    Raises:
      InputError: if there is such a file already, or a number is NaN or infinite.
      StorageError: if it cannot be written.
    """
    path = Path(path)
    check_params(params, params, str(path))
    content = safetensors.numpy.save({name: np.array(leaf, order="C") for name, leaf in named_leaves(params).items()})
    with storage.translated_errors(path):
        try:
            file = open(path, "xb")  # noqa: SIM115 (what cannot be created is not removed below)
        except FileExistsError as error:
            action = "Choose another path, or remove the file yourself: nothing is ever overwritten."
            raise InputError(str(path), "output file", "a file", "a new file", action) from error
        try:
            with file:
                file.write(content)
        except BaseException:
            path.unlink()
            raise


def stack_centers(centers: Sequence[Params]) -> Params:
    """Stack centers over components, ``[components, ...]``, as ``Centers`` holds them.

    >>> stack_centers([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])
    {'w': Array([[0., 0.], [1., 1.]], dtype=float32)}

    Raises:
      InputError: if there is none, their trees, shapes or types differ, two are identical, or a number is not finite.
    """
    if not centers:
        raise InputError("centers", "components", "none", "one or more", "Give a center.")
    first_with: dict[bytes, int] = {}
    for index, center in enumerate(centers):
        check_params(center, centers[0], f"centers[{index}]")
        content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(center))
        if (first := first_with.setdefault(content, index)) != index:
            found = f"the same parameters as in centers[{first}]"
            action = "Leave one out, and give the other the weight of both."
            raise InputError(f"centers[{index}]", "parameters", found, "a center of its own", action)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *centers)


def _read_safetensors(path: Path, template: PyTree) -> Params:
    try:
        with storage.translated_errors(path), safetensors.safe_open(path, framework="np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            layout = {
                name: described(part.get_shape(), _SAFETENSORS_TYPES.get(part.get_dtype(), part.get_dtype()))
                for name, part in parts.items()
            }
            check_layout(layout, template, str(path))
            leaves = [jnp.asarray(file.get_tensor(name)) for name in named_leaves(template)]
    except safetensors.SafetensorError as error:
        found, expected = f"something else ({error})", "a whole safetensors file"
        raise CorruptDataError(str(path), "content", found, expected, storage.COPY_AGAIN) from error
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _read_orbax(path: Path, template: PyTree) -> Params:
    import orbax.checkpoint as ocp

    if not (path / "_METADATA").is_file():
        expected = "the directory of an Orbax checkpoint, which has one"
        action = "Give the directory of the tree itself: in the directory of a step it is often called `default`."
        raise InputError(str(path), "_METADATA", "no such file", expected, action)
    with ocp.StandardCheckpointer() as checkpointer:
        # What cannot be read has no metadata; why, Orbax does not tell.
        if (metadata := checkpointer.metadata(path.absolute()).item_metadata) is None:
            found = "something that Orbax cannot read"
            raise CorruptDataError(str(path), "metadata", found, "an Orbax checkpoint", storage.COPY_AGAIN)
        check_layout(layout_of(metadata.tree), template, str(path))
        # As NumPy arrays, for which the devices that the checkpoint was saved from do not matter.
        blank = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        try:
            arrays = checkpointer.restore(path.absolute(), blank)
        except Exception as error:  # Orbax raises bare exceptions for damaged chunks.
            reason = str(error.__cause__ or error).partition(" [tensorstore_spec")[0]
            found, expected = f"something that Orbax cannot read ({reason})", "an Orbax checkpoint"
            raise CorruptDataError(str(path), "arrays", found, expected, storage.COPY_AGAIN) from error
    return jax.tree.map(jnp.asarray, arrays)

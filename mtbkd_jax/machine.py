"""The machine that a program runs on: a device for each core, and what was compiled is kept for the next time.

For programs, such as the command line and the studies; a library must leave both to its user.
"""

import contextlib
import os
import platform
from pathlib import Path

import jax

_CACHE_BYTES = 1 << 30


def use_machine() -> None:
    """Set JAX up, before its first array; some libraries make one when they are imported.

    Chains are spread over devices: one for each core makes them run side by side, with the same draws to the bit.
    Half of a short run is compilation, which is kept on the disk: below ``XDG_CACHE_HOME`` (``~/.cache``), in a folder
    for each host, since what is compiled for one processor may not run on another, and a gigabyte of it at most.

    A program that has used JAX already keeps its devices. A user's own settings stay: ``JAX_NUM_CPU_DEVICES``,
    ``JAX_COMPILATION_CACHE_DIR``, and ``JAX_ENABLE_COMPILATION_CACHE``.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        compiled = user_cache() / platform.node()
        remove_oldest(compiled, _CACHE_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(compiled))
        # The smallest too: a short run has hundreds of them, which took 10 of its 59 seconds when they were not kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Remove the files of a folder that were not used for the longest time; the others have so many bytes at most.

    JAX can limit its folder itself, and then reads all of it whenever it adds a program: a second, with 6,000 there.
    """
    files = []
    # Another program may be removing them too.
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.is_file():
                status = entry.stat()
                files.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
    bytes_left = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if bytes_left <= most_bytes:
            break
        Path(path).unlink(missing_ok=True)
        bytes_left -= size


def user_cache() -> Path:
    """Where what can be had again is kept for the user: below ``XDG_CACHE_HOME`` (``~/.cache``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtbkd_jax"

"""The same small table in every format, and how an importer is asked about it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

FORMATS = ("csv", "npz", "parquet", "safetensors", "dataset")
NUM_ROWS = 12
CLASS_NAMES = ("cat", "dog", "eel")


def arrays() -> dict[str, np.ndarray]:
    """Ids, two features, labels as numbers, and logits of three classes."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(NUM_ROWS, 2)).astype(np.float32)
    logits = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    columns = {"x_0": features[:, 0], "x_1": features[:, 1]}
    columns |= {name: logits[:, column] for column, name in enumerate(CLASS_NAMES)}
    labels = np.arange(NUM_ROWS) % 4 - 1
    return {"id": 100 + np.arange(NUM_ROWS), "label": labels, "matrix": features, **columns}


def write_table(format_name: str, path: Path, columns: dict[str, object] | None = None) -> Path:
    """Write columns in a format; CSV has no place for a matrix."""
    columns = arrays() if columns is None else columns
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_suffix("" if format_name == "dataset" else f".{format_name}")
    if format_name == "csv":
        flat = {name: list(values) for name, values in columns.items() if np.ndim(values[0]) == 0}
        rows = zip(*flat.values(), strict=True)
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in (flat, *rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif format_name == "npz":
        np.savez(file, **columns)
    elif format_name == "safetensors":
        safetensors.numpy.save_file({name: np.ascontiguousarray(values) for name, values in columns.items()}, file)
    else:
        table = pa.table({name: list(values) for name, values in columns.items()})
        if format_name == "parquet":
            pq.write_table(table, file)
        else:
            write_dataset(file, table)
    return file


def write_dataset(path: Path, table: pa.Table, class_names: tuple[str, ...] = CLASS_NAMES) -> None:
    """A directory as ``Dataset.save_to_disk(num_shards=2)`` of datasets 5.2.0 makes it."""
    path.mkdir(parents=True)
    half = len(table) // 2
    names = [f"data-0000{shard}-of-00002.arrow" for shard in range(2)]
    for name, part in zip(names, (table.slice(0, half), table.slice(half)), strict=True):
        with pa.OSFile(str(path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "abc", "_split": None}
    (path / "state.json").write_text(json.dumps(state))
    features = {"label": {"names": list(class_names), "_type": "ClassLabel"}}
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))

"""Outputs of a teacher from tables of every format, and tables that are refused."""

import os

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from mtbkd_jax.aligned_teachers import align_teachers, open_teachers
from mtbkd_jax.cli import main
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports import import_teacher
from tests.imports.tables import CLASS_NAMES, FORMATS, NUM_ROWS, arrays, write_table

IDS = np.array([str(100 + row) for row in range(NUM_ROWS)])
LOGITS = np.stack([arrays()[name] for name in CLASS_NAMES], axis=1)


@pytest.mark.parametrize("format_name", FORMATS)
def test_columns_of_every_format_become_a_directory(format_name, tmp_path):
    file = write_table(format_name, tmp_path / "table")
    outputs = import_teacher(file, tmp_path / "out", name="big", outputs=CLASS_NAMES, softening=2.0)
    outputs.verify()
    assert outputs.names == ("big",)
    assert outputs.softening == (2.0,)
    assert outputs.class_names == CLASS_NAMES
    assert outputs.sources[0].startswith(f"{file.name}, SHA-256 ")
    np.testing.assert_allclose(outputs.logits(IDS[::-1])[:, 0], LOGITS[::-1], rtol=1e-6)


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "csv"])
def test_one_column_may_hold_all_classes(format_name, tmp_path):
    values = LOGITS if format_name in ("npz", "safetensors") else LOGITS.tolist()
    file = write_table(format_name, tmp_path / "table", {"logits": values})
    outputs = import_teacher(file, tmp_path / "out", name="big", class_names=CLASS_NAMES)
    np.testing.assert_array_equal(outputs.logits(outputs.ids)[:, 0], LOGITS)
    assert outputs.class_names == CLASS_NAMES
    assert outputs.ids.tolist() == list(map(str, range(NUM_ROWS)))


def test_all_columns_but_the_ids_are_taken_and_indices_put_in_order(tmp_path):
    file = write_table("csv", tmp_path / "table", {"1": [5, 6], "Id": ["a", "b"], "0": [-1, -2]})
    outputs = import_teacher(file, tmp_path / "out", name="big")
    assert outputs.class_names is None
    assert outputs.logits(np.array(["b", "a"]))[:, 0].tolist() == [[-2, 6], [-1, 5]]


def test_probabilities_of_many_batches_become_logits(tmp_path):
    probs = np.random.default_rng(0).dirichlet(np.ones(3), size=9000)
    columns = {"id": np.arange(9000)} | {f"p_{column}": probs[:, column] for column in range(3)}
    file = write_table("parquet", tmp_path / "table", columns)
    outputs = import_teacher(
        file, tmp_path / "out", name="a", outputs=["p_*"], kind="probabilities", class_names=[*"xyz"]
    )
    np.testing.assert_allclose(np.exp(outputs.logits(outputs.ids)[:, 0]), probs, rtol=1e-5, atol=1e-30)
    with pytest.raises(InputError, match="outputs from row 0: found rows that are non-negative and sum to one"):
        import_teacher(file, tmp_path / "other", name="a", outputs=["p_*"])


GOOD = {"id": ["a", "b"], "x": [1, 2], "y": [3, 4]}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"x": [1, "nan"]}, {}, "x from row 0: found NaN in row 1"),
        ({"x": [1, ""]}, {}, "x from row 0: found 1 missing"),
        ({"x": [1, "word"]}, {}, "could not convert string to float: 'word'"),
        ({"id": ["a", "a"]}, {}, "id: found 1 more than once: 'a'"),
        ({"id": ["a", ""]}, {}, "id: found 1 missing"),
        ({}, {"kind": "probabilities"}, "outputs from row 0: found row 0 with least element 1 and sum 4"),
        ({}, {"outputs": ["x"]}, "found 1, expected two classes or more"),
        ({}, {"outputs": ["z"]}, "z: found only the columns 'id', 'x', 'y'"),
        ({}, {"outputs": ["*"]}, "outputs: found the column 'id' of the ids"),
        ({}, {"class_names": ["a", "b", "c"]}, "classes: found 3 names, expected 2"),
        ({}, {"class_names": ["a", "a"]}, "class_names: found 1 more than once"),
        ({}, {"ids": "key"}, "key: found only the columns"),
        ({}, {"softening": 0.0}, "softening: found 0"),
        ({"softening": [1, 1]}, {}, "softening: found a field of that name"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_and_nothing_is_written(tmp_path, changes, options, message):
    file = write_table("csv", tmp_path / "table", GOOD | changes)
    with pytest.raises(InputError, match=message):
        import_teacher(file, tmp_path / "out", name="a", **options)
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_bad_row_in_a_later_batch_leaves_nothing_either(tmp_path):
    rows = [str(row) for row in range(9000)]
    file = write_table("csv", tmp_path / "table", {"x": rows, "y": [*rows[:-1], "inf"]})
    with pytest.raises(InputError, match="y from row 8192: found an infinite number"):
        import_teacher(file, tmp_path / "out", name="a")
    assert os.listdir(tmp_path) == ["table.csv"]


def test_the_command_writes_what_fit_reads_and_never_over_it(tmp_path, capsys):
    file = write_table("parquet", tmp_path / "table")
    out = str(tmp_path / "out")
    command = ["import-teacher", str(file), "--out", out, "--name", "big", "--outputs", *CLASS_NAMES]
    main(command)
    assert f"{NUM_ROWS} examples, 3 classes" in capsys.readouterr().out
    aligned = align_teachers(open_teachers([out]), ids=IDS)
    np.testing.assert_array_equal(aligned.logits[:, 0], LOGITS)
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "nothing is ever overwritten" in capsys.readouterr().err


TOP = np.argsort(-LOGITS, axis=1)[:, :2]
TOP_LOG_PROBS = np.take_along_axis(LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True)), TOP, axis=1)
SPARSE = {"name": "closed", "outputs": ["top_log_probs"], "top_classes": "top_classes"}


@pytest.mark.parametrize("format_name", ["npz", "parquet"])
def test_the_most_probable_classes_alone_become_a_directory(format_name, tmp_path):
    classes, log_probs = TOP.copy(), TOP_LOG_PROBS.copy()
    classes[3, 1], log_probs[3, 1] = -1, 0.0  # of this example the teacher gave one class
    columns = {"ids": IDS, "top_classes": classes, "top_log_probs": log_probs}
    if format_name == "parquet":
        columns = {name: values.tolist() for name, values in columns.items()}
    file = write_table(format_name, tmp_path / "table", columns)
    outputs = import_teacher(file, tmp_path / "out", class_names=CLASS_NAMES, **SPARSE)
    outputs.verify()
    assert outputs.is_sparse == (True,)
    found = outputs.logits(IDS)[:, 0]
    expected = np.full((NUM_ROWS, 3), np.nan)
    np.put_along_axis(expected, TOP, TOP_LOG_PROBS, axis=1)
    expected[3, TOP[3, 1]] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def with_cell(values, row, column, value):
    changed = np.array(values, copy=True)
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"top_classes": with_cell(TOP, 4, 0, 3)}, {}, "found 3 in row 4, expected whole numbers from 0 to 2"),
        ({"top_classes": with_cell(TOP, 4, 0, -2)}, {}, "found -2 in row 4"),
        ({"top_classes": with_cell(TOP.astype(float), 4, 0, 0.5)}, {}, "found 0.5 in row 4"),
        ({"top_classes": with_cell(TOP, 4, 0, TOP[4, 1])}, {}, "more than once in row 4, expected each class once"),
        ({"top_classes": np.full_like(TOP, -1)}, {}, "NaN for all classes in row 0, expected one class or more"),
        ({"top_classes": TOP[:, :1]}, {}, r"shape \(12, 1\), and outputs of shape \(12, 2\)"),
        ({"top_log_probs": with_cell(TOP_LOG_PROBS, 4, 0, 0.7)}, {}, "row 4 with largest element 0.7"),
        ({"top_log_probs": with_cell(TOP_LOG_PROBS, 4, 0, -0.001)}, {}, "row 4 with largest element"),
        ({"top_log_probs": with_cell(TOP_LOG_PROBS, 4, 0, np.nan)}, {}, "NaN in row 4"),
        ({"top_log_probs": np.exp(TOP_LOG_PROBS)}, {}, "row 0 with largest element"),
        ({}, {"class_names": None}, "neither names nor a number, expected the names of the classes, or their number"),
        ({}, {"num_classes": 4}, "found 3 names, expected 4, as there are classes"),
        ({}, {"kind": "logits"}, "found 'logits', expected none"),
        ({}, {"outputs": ["top_*"]}, "expected one column beside 'top_classes'"),
        ({}, {"top_classes": None, "num_classes": 3}, "expected none, where every class has an output"),
    ],
)
def test_most_probable_classes_that_are_none_are_refused(columns, options, message, tmp_path):
    given = {"ids": IDS, "top_classes": TOP, "top_log_probs": TOP_LOG_PROBS}
    file = write_table("npz", tmp_path / "table", given | columns)
    with pytest.raises(InputError, match=message):
        import_teacher(file, tmp_path / "out", **({"class_names": CLASS_NAMES} | SPARSE | options))
    assert not (tmp_path / "out").exists()

"""Examples from tables of every format, and tables that are refused."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from mtbkd_jax.adapters import read_questions
from mtbkd_jax.cli import main
from mtbkd_jax.data import read_dataset
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.imports import import_data
from tests.imports.tables import CLASS_NAMES, FORMATS, NUM_ROWS, arrays, write_dataset, write_table

ONE_FOR_EACH = list(range(NUM_ROWS))


@pytest.mark.parametrize("format_name", FORMATS)
def test_columns_of_every_format_become_a_data_file(format_name, tmp_path):
    file = write_table(format_name, tmp_path / "table")
    imported = import_data(file, tmp_path / "data.npz", inputs=["x_*"], label="label")
    dataset = read_dataset(tmp_path / "data.npz")
    np.testing.assert_allclose(dataset.inputs, arrays()["matrix"], rtol=1e-6)
    assert dataset.labels.tolist() == arrays()["label"].tolist()
    assert dataset.ids.tolist() == [str(100 + row) for row in range(NUM_ROWS)]
    assert dataset.class_names == (CLASS_NAMES if format_name == "dataset" else None)
    assert np.load(tmp_path / "data.npz")["feature_names"].tolist() == ["x_0", "x_1"]
    assert imported[1:4] == (NUM_ROWS, 9, (2,))


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "csv"])
def test_a_column_with_a_row_for_each_example_keeps_its_shape(format_name, tmp_path):
    images = np.arange(NUM_ROWS * 6, dtype=np.float32).reshape(NUM_ROWS, 2, 3)
    values = images if format_name in ("npz", "safetensors") else images.tolist()
    file = write_table(format_name, tmp_path / "table", {"image": values})
    import_data(file, tmp_path / "data.npz", inputs=["image"])
    dataset = read_dataset(tmp_path / "data.npz")
    np.testing.assert_array_equal(dataset.inputs, images)
    assert set(dataset.labels.tolist()) == {-1}
    assert dataset.ids.tolist() == list(map(str, range(NUM_ROWS)))


def test_a_table_of_many_batches_stays_in_order(tmp_path):
    rows = np.arange(10_000)
    file = write_table("csv", tmp_path / "table", {"id": rows, "x": rows / 4, "y": -rows})
    import_data(file, tmp_path / "data.npz", inputs=["y", "x"])
    dataset = read_dataset(tmp_path / "data.npz")
    np.testing.assert_array_equal(dataset.inputs, np.stack([-rows, rows / 4], axis=1))
    assert dataset.ids.tolist() == list(map(str, rows))


def test_columns_of_several_ranks_are_put_side_by_side_and_none_is_lost(tmp_path):
    columns = {"a": np.ones((3, 2, 2)), "b": np.arange(3), "c": np.ones((3, 1, 0))}
    import_data(write_table("npz", tmp_path / "table", columns), tmp_path / "data.npz", inputs=["a", "b", "c"])
    np.testing.assert_array_equal(read_dataset(tmp_path / "data.npz").inputs[2], [1, 1, 1, 1, 2])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_labels_may_be_kept_as_whole_floating_point_numbers(tmp_path, dtype):
    columns = {"x": np.arange(3.0), "y": np.array([-1, 0, 7], dtype)}
    import_data(write_table("npz", tmp_path / "table", columns), tmp_path / "data.npz", inputs=["x"], label="y")
    assert read_dataset(tmp_path / "data.npz").labels.tolist() == [-1, 0, 7]
    columns["y"] = np.array([0, 0.5, np.inf], dtype)
    with pytest.raises(InputError, match=r"y: found 0\.5, expected whole numbers"):
        import_data(write_table("npz", tmp_path / "bad", columns), tmp_path / "bad_data.npz", inputs=["x"], label="y")


@pytest.mark.parametrize("format_name", ["csv", "parquet"])
def test_text_becomes_questions_for_teachers(format_name, tmp_path):
    texts = ["dögs, and cats"] * (NUM_ROWS - 1) + ["7"]
    if format_name == "csv":
        (tmp_path / "table.csv").write_text("text\n" + "\n".join(f'"{text}"' for text in texts), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / "table.parquet")
    import_data(tmp_path / f"table.{format_name}", tmp_path / "data.npz", inputs=["text"])
    assert read_questions(tmp_path / "data.npz").inputs.tolist() == texts


@pytest.mark.parametrize(
    ("cells", "given", "labels", "class_names"),
    [
        (["dog", "cat", "", "dog"], None, [1, 0, -1, 1], ("cat", "dog")),
        (["dog", "cat", "", "dog"], ("eel", "dog", "cat"), [1, 2, -1, 1], ("eel", "dog", "cat")),
        (["2", "1.0", "", "-1"], None, [2, 1, -1, -1], None),
        (["1", "0", "", "1"], ("cat", "dog"), [1, 0, -1, 1], ("cat", "dog")),
        (["3", "7", "", "3"], ("7", "3"), [1, 0, -1, 1], ("7", "3")),
        (["", "", "", ""], None, [-1, -1, -1, -1], None),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, cells, given, labels, class_names):
    file = write_table("csv", tmp_path / "table", {"x": range(4), "label": cells})
    import_data(file, tmp_path / "data.npz", inputs=["x"], label="label", class_names=given)
    dataset = read_dataset(tmp_path / "data.npz")
    assert dataset.labels.tolist() == labels
    assert dataset.class_names == class_names


def test_missing_labels_of_parquet_are_none(tmp_path):
    file = write_table(
        "parquet", tmp_path / "table", {"x": range(3), "label": [1, None, 0], "patient": ["a", "a", "b"]}
    )
    import_data(file, tmp_path / "data.npz", inputs=["x"], label="label", groups="patient")
    dataset = read_dataset(tmp_path / "data.npz")
    assert dataset.labels.tolist() == [1, -1, 0]
    assert dataset.groups.tolist() == ["a", "a", "b"]


X = {"x": [0.5, 1.5, 2.5]}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (X, {"inputs": ["y_*"]}, r"y_\*: found only the columns 'x', expected a column of that name"),
        (X, {"label": "y"}, "y: found only the columns 'x'"),
        (X, {"inputs": []}, "inputs: found no column"),
        (X, {"label": "x"}, "inputs: found 'x' for something else as well"),
        ({"x": [1, "", 2], "y": [1, 2, 3]}, {}, "x: found 1 missing, the first in row 1"),
        ({"x": [1, "nan", 2]}, {}, "x: found NaN in row 1"),
        ({"x": [1, "1e99", 2]}, {}, "x: found an infinite number .in float32. in row 1"),
        ({"x": [1, 2, 3], "y": [1, "word", 3]}, {"inputs": ["x", "y"]}, "could not convert string to float: 'word'"),
        (X | {"id": ["a", "b", "a"]}, {}, "ids: found 1 more than once: 'a'"),
        (X | {"id": ["a", "", "b"]}, {}, "id: found 1 missing, the first in row 1"),
        (X | {"id": ["a", "b", "c"], "ids": [1, 2, 3]}, {}, "columns: found several of ids: 'id', 'ids'"),
        (X | {"y": [0, 1.5, 0]}, {"label": "y"}, "y: found '1.5', expected whole numbers"),
        (X | {"y": [0, "nan", 0]}, {"label": "y"}, "y: found 'nan', expected whole numbers"),
        (X | {"y": [0, "cat", 0]}, {"label": "y"}, "y: found 'cat', expected whole numbers"),
        (X | {"y": [0, -2, 0]}, {"label": "y"}, "y: found -2 in row 1"),
        (X | {"y": [0, 2**40, 0]}, {"label": "y"}, "y: found '1099511627776'"),
        (X | {"y": [0, 2, 0]}, {"label": "y", "class_names": ["a", "b"]}, "y: found 2 in row 1"),
        (
            X | {"y": ["a", "c", ""]},
            {"label": "y", "class_names": ["a", "b"]},
            "y: found 'c', expected one of 'a', 'b'",
        ),
        (X | {"y": ["a", "a", "a"]}, {"label": "y"}, "y: found 1, expected two classes or more"),
        ({"x": [1.0]}, {}, "examples: found 1, expected two examples"),
        ({"x": []}, {}, "examples: found 0, expected two examples"),
        ({"x": [1, 2], "": [0, 1]}, {}, "header: found a column without a name"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_and_nothing_is_written(tmp_path, columns, options, message):
    file = write_table("csv", tmp_path / "table", columns) if columns["x"] else tmp_path / "table.csv"
    if not columns["x"]:
        file.write_text("x\n")
    with pytest.raises(InputError, match=message) as caught:
        import_data(file, tmp_path / "data.npz", **({"inputs": ["x"]} | options))
    assert caught.value.action
    assert os.listdir(tmp_path) == ["table.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header: found nothing"),
        ("x,x\n1,2\n", "header: found more than once: 'x'"),
        ("x,y\n1,2\n3\n", "line 3: found 1 cells, expected 2, as in the header"),
        ('x,y\n1,2\n3,"4\n', "content: found something else .unexpected end of data"),
    ],
)
def test_broken_csv_is_refused(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        import_data(tmp_path / "table.csv", tmp_path / "data.npz", inputs=["x"])


def test_another_encoding_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("x,é\n1,2\n3,4\n", encoding="latin-1")
    with pytest.raises(InputError, match="expected comma-separated text in UTF-8"):
        import_data(tmp_path / "table.csv", tmp_path / "data.npz", inputs=["x"])


@pytest.mark.parametrize("format_name", ["npz", "parquet", "safetensors", "dataset"])
def test_a_truncated_file_is_refused(format_name, tmp_path):
    file = write_table(format_name, tmp_path / "table")
    stream = file / "data-00001-of-00002.arrow" if format_name == "dataset" else file
    stream.write_bytes(stream.read_bytes()[:-9])
    with pytest.raises(CorruptDataError, match="Copy it again"):
        import_data(file, tmp_path / "data.npz", inputs=["x_0"])


def test_a_dataset_without_its_last_batches_is_refused(tmp_path):
    file = write_table("dataset", tmp_path / "table")
    stream = file / "data-00001-of-00002.arrow"
    stream.write_bytes(stream.read_bytes()[:-8])  # pyarrow alone takes this for a shorter one
    with pytest.raises(CorruptDataError, match="end: found something else, expected the mark of the end"):
        import_data(file, tmp_path / "data.npz", inputs=["x_0"])


@pytest.mark.parametrize(
    "name", ["../secret.arrow", "/etc/passwd", "..", "", "link.arrow", "a\0b", "..\\secret.arrow", "\ud800", "a" * 300]
)
def test_a_dataset_cannot_lead_out_of_its_directory(tmp_path, name):
    file = write_table("dataset", tmp_path / "table")
    (tmp_path / "secret.arrow").write_bytes((file / "data-00000-of-00002.arrow").read_bytes())
    (file / "link.arrow").symlink_to(tmp_path / "secret.arrow")
    (file / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match=r"filename: found .*nothing outside is read"):
        import_data(file, tmp_path / "data.npz", inputs=["x_0"])


def test_compressed_streams_are_refused(tmp_path):
    table = pa.table({"x": np.zeros(10**6)})
    write_dataset(tmp_path / "table", table)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for stream in (tmp_path / "table").glob("*.arrow"):
        with pa.OSFile(str(stream), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match="batch: found compressed buffers"):
        import_data(tmp_path / "table", tmp_path / "data.npz", inputs=["x"])


def test_several_datasets_are_told_from_one(tmp_path):
    file = write_table("dataset", tmp_path / "table")
    (file / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(InputError, match="found several data sets"):
        import_data(file, tmp_path / "data.npz", inputs=["x_0"])


def test_a_small_parquet_file_cannot_fill_the_memory(tmp_path):
    bomb = pa.table({"x": pa.repeat(1.0, 100_000_000)})
    pq.write_table(bomb, tmp_path / "table.parquet", compression="zstd")
    assert (tmp_path / "table.parquet").stat().st_size < 10**6
    with pytest.raises(InputError, match="rows: found 800,000,000 bytes that are stored as"):
        import_data(tmp_path / "table.parquet", tmp_path / "data.npz", inputs=["x"])


def test_one_long_word_many_times_cannot_either(tmp_path):
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["a" * 10**6]))
    pq.write_table(pa.table({"x": words}), tmp_path / "table.parquet", compression="zstd")
    with pytest.raises(InputError, match="x: found 4,096,000,000 bytes that are stored as"):
        import_data(tmp_path / "table.parquet", tmp_path / "data.npz", inputs=["x"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [1.0, 2.0]], "x: found lists of 1 to 2 elements, expected lists of one length"),
        ([[1.0], None], "x: found missing lists"),
        ([[1.0], [None]], "x: found 1 missing, the first in row 1"),
        ([["a"], ["b"]], "x: found lists of text"),
        ([{"a": 1}, {"a": 2}], "x: found elements of type struct"),
        ([b"a", b"b"], "x: found elements of type binary"),
    ],
)
def test_arrow_columns_that_are_no_array_are_refused(tmp_path, values, message):
    pq.write_table(pa.table({"x": values}), tmp_path / "table.parquet")
    with pytest.raises(InputError, match=message):
        import_data(tmp_path / "table.parquet", tmp_path / "data.npz", inputs=["x"])


@pytest.mark.parametrize("name", ["table.txt", "table", "table.json"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="file name: found the ending"):
        import_data(tmp_path / name, tmp_path / "data.npz", inputs=["x"])


def test_the_command_writes_once_and_never_over_it(tmp_path, capsys):
    file = write_table("csv", tmp_path / "table", {"x": range(4), "kind": ["dog", "cat", "", "dog"]})
    command = ["import-data", str(file), "--out", str(tmp_path / "data.npz"), "--inputs", "x", "--label", "kind"]
    main(command)
    out = capsys.readouterr().out
    assert "4 examples, 3 with a label" in out
    assert "Classes from 0: cat, dog" in out
    before = (tmp_path / "data.npz").read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "nothing is ever overwritten" in capsys.readouterr().err
    assert (tmp_path / "data.npz").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["data.npz", "table.csv"]

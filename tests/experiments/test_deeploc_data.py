import numpy as np
import pytest

from experiments.deeploc.data import DEFAULT_DIRECTORY, folds, read_deeploc, read_multilabel
from experiments.deeploc.features import FEATURES
from mtbkd_jax.composition import composition_features
from mtbkd_jax.errors import InputError

SHARED_DATA = DEFAULT_DIRECTORY.parent


@pytest.fixture
def small_directory(tmp_path):
    """Three proteins in the layout of the DeepLoc data, with object arrays that would have to be unpickled."""
    fields = {
        "ids": np.array(["Q1", "Q2", "Q3"], object),
        "labels": np.array([0, 1, 0], np.int32),
        "partition": np.array([0, 1, 4], np.int32),
        "unirep256": np.arange(3 * 512, dtype=np.float32).reshape(3, 512),
        "unirep64": np.arange(3 * 128, dtype=np.float64).reshape(3, 128),
        "class_names": np.array(["Cytoplasm", "Nucleus"]),
        "sequence_bytes": np.frombuffer(b"MKVLMA", np.uint8),
        "sequence_offsets": np.array([0, 2, 5, 6]),
        "teacher_esm2_650m": np.ones((3, 2), np.float32),
        "teacher_prott5_xl": np.zeros((3, 2), np.float32),
    }
    np.savez(tmp_path / "train.npz", **fields)
    (tmp_path / "as_published").mkdir()
    (tmp_path / "as_published" / "data_our_train_sample.csv").write_text(
        "ACC,Partition,Sequence,Label\nQ1,0,MK,0\nQ2,1,VLM,1\nQ3,4,A,0\n", encoding="utf-8"
    )
    return tmp_path


def test_ids_come_from_the_published_file_and_nothing_is_unpickled(small_directory):
    data = read_deeploc(small_directory)
    assert data.ids.tolist() == ["Q1", "Q2", "Q3"]
    assert data.ids.dtype.kind == "U"
    assert data.inputs.shape == (3, 256)
    assert data.inputs[1, 0] == 512.0
    np.testing.assert_array_equal(data.teacher_logits[:, 0], 1.0)
    assert data.class_names == ("Cytoplasm", "Nucleus")


@pytest.mark.parametrize(
    ("before", "after", "column"),
    [
        ("VLM,1", "VLM,0", "Label"),
        ("Q3,4", "Q3,3", "Partition"),
        ("VLM", "VIM", "Sequence"),
        ("Q3,4,A,0\n", "", "rows"),
    ],
)
def test_files_of_other_proteins_are_refused(small_directory, before, after, column):
    published = small_directory / "as_published" / "data_our_train_sample.csv"
    published.write_text(published.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=column):
        read_deeploc(small_directory)


@pytest.mark.parametrize("features", FEATURES)
def test_inputs_are_the_mean_hidden_state_and_composition_where_asked_for(small_directory, features):
    inputs = read_deeploc(small_directory, features).inputs
    assert inputs.dtype == np.float32
    with np.load(small_directory / "train.npz") as archive:
        # The first half is the mean over residues, the second the last hidden state.
        mean_state = np.split(archive[FEATURES[features].model], 2, axis=1)[0]
    np.testing.assert_array_equal(inputs[:, : mean_state.shape[1]], mean_state)
    rest = inputs[:, mean_state.shape[1] :]
    expected = composition_features(["MK", "VLM", "A"]) if features == "unirep256_composition" else np.zeros((3, 0))
    np.testing.assert_array_equal(rest, expected)


def test_proteins_of_several_compartments_come_with_their_partition(tmp_path):
    fields = {
        "unirep256": np.ones((2, 512), np.float64),
        "sequence_bytes": np.frombuffer(b"MKMV", np.uint8),
        "sequence_offsets": np.array([0, 3, 4]),
    }
    np.savez(tmp_path / "multilabel_dev.npz", **fields, partition=np.array([3, 1]))
    inputs, partition = read_multilabel(tmp_path)
    assert inputs.shape == (2, 256)
    assert inputs.dtype == np.float32
    assert partition.tolist() == [3, 1]
    inputs, _ = read_multilabel(tmp_path, "unirep256_composition")
    np.testing.assert_array_equal(inputs[:, 256:], composition_features(["MKM", "V"]))
    np.savez(tmp_path / "multilabel_dev.npz", **fields)
    with pytest.raises(InputError, match="partition: found no such array"):
        read_multilabel(tmp_path)
    with pytest.raises(InputError, match=r"multilabel_dev\.npz: found no such file"):
        read_multilabel(tmp_path / "nowhere")


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: train\.npz: found no such file"):
        read_deeploc(tmp_path / "nowhere")


def test_a_missing_array_is_named(small_directory):
    np.savez(small_directory / "train.npz", labels=np.zeros(3, np.int32))
    with pytest.raises(InputError, match="partition: found no such array"):
        read_deeploc(small_directory)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the development data are not at {SHARED_DATA}")
def test_real_data_hold_the_proteins_and_teachers_that_are_described():
    data = read_deeploc()
    assert data.ids[0] == "Q8BGH4"
    assert len(set(data.ids.tolist())) == 2_500
    assert data.inputs.shape == (2_500, 256)
    assert data.teacher_logits.shape == (2_500, 2, 10)
    teacher_accuracy = (data.teacher_logits.argmax(-1) == data.labels[:, None]).mean(0)
    np.testing.assert_allclose(teacher_accuracy, [0.812, 0.830], atol=5e-4)
    assert [len(test) for _, test in folds(data.partition)] == [503, 480, 535, 503, 479]
    assert read_deeploc(features="unirep64").inputs.shape == (2_500, 64)
    assert read_deeploc(features="unirep256_composition").inputs.shape == (2_500, 456)
    inputs, partition = read_multilabel(features="unirep256_composition")
    assert inputs.shape == (1_000, 456)
    assert partition.shape == (1_000,)
    assert set(partition.tolist()) == set(range(5))


def test_folds_part_the_rows_by_partition():
    partition = np.array([2, 0, 1, 1, 2, 0])
    pairs = list(folds(partition))
    assert len(pairs) == 3
    for number, (train, test) in enumerate(pairs):
        assert set(partition[test].tolist()) == {number}
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(6))

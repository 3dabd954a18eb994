"""Tests of mtbkd_jax.adapters.onnx_models: hostile files, and models that are no classifiers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtbkd_jax.adapters import make_questions, read_onnx, teach
from mtbkd_jax.errors import InputError
from tests.adapters.table import numbers, onnx_forest, sentences


def linear_model(path, *, location=None, entry_type=TensorProto.FLOAT, num_inputs=1):
    """inputs @ weights, with the weights in the file or in one at another location."""
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weights")
    if location is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
    entries = [helper.make_tensor_value_info(f"input{number}", entry_type, [None, 4]) for number in range(num_inputs)]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 4])
    cast = helper.make_node("Cast", ["input0"], ["cast"], to=TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["cast", "weights"], ["logits"])
    graph = helper.make_graph([cast, product], "linear", entries, [output], [weights])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_a_file_beside_the_model_are_read(tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    adapter = read_onnx(linear_model(tmp_path / "model.onnx", location="weights.bin"))
    np.testing.assert_array_equal(adapter.predict(numbers()), numbers())


@pytest.mark.parametrize("how", ["parent", "absolute", "link"])
def test_no_file_outside_the_directory_of_the_model_is_read(tmp_path, how):
    (tmp_path / "secret.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    directory = tmp_path / "model"
    directory.mkdir()
    location = {"parent": "../secret.bin", "absolute": str(tmp_path / "secret.bin"), "link": "link.bin"}[how]
    (directory / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match=r"model\.onnx: content: found something else"):
        read_onnx(linear_model(directory / "model.onnx", location=location))


def test_a_damaged_file_is_refused(tmp_path):
    path = linear_model(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"model\.onnx: content: found something else"):
        read_onnx(path)
    with pytest.raises(InputError, match="no such file"):
        read_onnx(tmp_path / "none.onnx")


def test_the_source_tells_files_apart(tmp_path):
    first = read_onnx(linear_model(tmp_path / "a.onnx"))
    model = onnx.load(tmp_path / "a.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(-np.eye(4, dtype=np.float32), "weights"))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert first.source.startswith("ONNX model a.onnx, SHA-256 ")
    assert read_onnx(tmp_path / "a.onnx").source != first.source


def test_models_with_other_than_one_input_and_one_output_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.onnx: inputs: .*Export a model with one input"):
        read_onnx(linear_model(tmp_path / "model.onnx", num_inputs=2))
    onnx_forest(tmp_path / "forest.onnx", numbers())
    with pytest.raises(InputError, match=r"forest\.onnx: outputs: .*`zipmap=False`"):
        read_onnx(tmp_path / "forest.onnx")


def test_inputs_are_converted_where_nothing_but_precision_is_lost(tmp_path):
    adapter = read_onnx(linear_model(tmp_path / "a.onnx"))
    np.testing.assert_array_equal(adapter.predict(np.full((2, 4), 3, np.uint8)), np.full((2, 4), 3))
    np.testing.assert_allclose(adapter.predict(numbers().astype(np.float64)), numbers())
    with pytest.raises(InputError, match=r"b\.onnx: inputs: found elements of type float32"):
        read_onnx(linear_model(tmp_path / "b.onnx", entry_type=TensorProto.INT64)).predict(numbers())
    with pytest.raises(InputError, match="found elements of type <U"):
        adapter.predict(sentences())


def test_probabilities_are_not_taken_for_logits(tmp_path):
    onnx_forest(tmp_path / "forest.onnx", numbers(), zipmap=False)
    with pytest.raises(InputError, match="Say what they are: the kind `probabilities`"):
        teach(tmp_path / "out", {"forest": read_onnx(tmp_path / "forest.onnx")}, make_questions(numbers()))

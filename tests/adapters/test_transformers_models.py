"""Tests of mtbkd_jax.adapters.transformers_models; skipped where transformers is not installed."""

import json

import numpy as np
import pytest

from mtbkd_jax.adapters import (
    from_image_classifier,
    from_sequence_classifier,
    read_image_classifier,
    read_sequence_classifier,
)
from mtbkd_jax.errors import InputError
from tests.adapters.table import image_classifier, numbers, sentences, small_tokenizer

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def text_model(loader=transformers.BertForSequenceClassification, **options):
    torch.manual_seed(0)
    return loader(transformers.BertConfig(vocab_size=300, **SIZES, **options)).eval()


@pytest.fixture
def directory(tmp_path):
    text_model().save_pretrained(tmp_path / "model")
    small_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_text_classifier_is_read_from_its_directory(directory):
    adapter = read_sequence_classifier(directory)
    expected = from_sequence_classifier(text_model(), small_tokenizer()).predict(sentences())
    np.testing.assert_allclose(adapter.predict(sentences()), expected, rtol=1e-5, atol=1e-6)
    assert adapter.class_names is None
    assert adapter.source.startswith("transformers model model, SHA-256 ")


def test_an_image_classifier_is_read_from_its_directory(tmp_path):
    model, processor = image_classifier()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 12, 3)).astype(np.uint8)
    np.testing.assert_allclose(
        read_image_classifier(tmp_path).predict(images),
        from_image_classifier(model, processor).predict(images),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_source_tells_weights_apart(directory):
    before = read_sequence_classifier(directory).source
    model = text_model()
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(directory)
    assert read_sequence_classifier(directory).source != before


def test_a_model_without_the_weights_of_its_head_is_refused(directory):
    text_model(transformers.BertModel).save_pretrained(directory)
    with pytest.raises(InputError, match="model: weights: found no weights for 2 of its parameters, classifier"):
        read_sequence_classifier(directory)


def test_pickled_weights_are_not_read(directory):
    (directory / "model.safetensors").unlink()
    torch.save(text_model().state_dict(), directory / "pytorch_model.bin")
    with pytest.raises(InputError, match="model: model: found none that can be read"):
        read_sequence_classifier(directory)


def test_code_that_comes_with_a_model_is_not_run(directory):
    (directory / "code.py").write_text(
        f"open({str(directory / 'was_run')!r}, 'w')\nclass Model: pass\nConfig = Model\n"
    )
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}}
    config["auto_map"] |= {"AutoModelForSequenceClassification": "code.Model"}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="model: model: found none that can be read"):
        read_sequence_classifier(directory)
    assert not (directory / "was_run").exists()


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_weights_are_refused(directory, damage):
    content = (directory / "model.safetensors").read_bytes()
    damaged = content[:-10] if damage == "truncated" else b"\x01" + content[1:]
    (directory / "model.safetensors").write_bytes(damaged)
    with pytest.raises(InputError, match="model: model: found none that can be read"):
        read_sequence_classifier(directory)


def test_a_name_of_a_hub_is_no_directory(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: found no such file.*not fetched"):
        read_sequence_classifier(tmp_path / "owner" / "name")


@pytest.mark.parametrize("options", [{"num_labels": 1}, {"problem_type": "multi_label_classification"}])
def test_models_that_do_not_choose_one_class_are_refused(options):
    with pytest.raises(InputError, match="BertForSequenceClassification: config"):
        from_sequence_classifier(text_model(**options), small_tokenizer())


def test_a_model_that_cannot_pad_is_refused():
    tokenizer = small_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="pad_token: found none"):
        from_sequence_classifier(text_model(), tokenizer)


def test_inputs_of_another_kind_are_refused():
    with pytest.raises(InputError, match="inputs: found elements of type float32, expected text"):
        from_sequence_classifier(text_model(), small_tokenizer()).predict(numbers())
    with pytest.raises(InputError, match=r"inputs: found an array of shape \(130, 4\)"):
        from_image_classifier(*image_classifier()).predict(numbers())

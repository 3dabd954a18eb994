"""One adapter of each kind, on a small model of its framework, with what the framework itself says of the inputs."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import log_softmax

from mtbkd_jax.adapters import (
    Adapter,
    from_callable,
    from_image_classifier,
    from_language_model,
    from_linen,
    from_nnx,
    from_sequence_classifier,
    from_sklearn,
    from_torch,
    make_prompt,
    read_onnx,
)

NUM_EXAMPLES = 130


class Case(NamedTuple):
    """An adapter, inputs, and the log probabilities that its framework gives for all of them at once."""

    adapter: Adapter
    inputs: np.ndarray
    log_probs: np.ndarray


def numbers(num_features: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUM_EXAMPLES, num_features)).astype(np.float32)


def of_function() -> Case:
    weights = np.random.default_rng(1).normal(size=(4, 3))
    inputs = numbers()
    return Case(from_callable(lambda rows: rows @ weights), inputs, log_softmax(inputs @ weights, axis=1))


def of_sklearn_forest() -> Case:
    from sklearn.ensemble import RandomForestClassifier

    inputs = numbers()
    labels = np.array(["ant", "bee", "cow"])[inputs[:, :3].argmax(1)]
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(inputs[:60], labels[:60])
    # Trees give probabilities of zero, which become the smallest normal float32.
    return Case(from_sklearn(forest), inputs, np.log(np.maximum(forest.predict_proba(inputs), 1.1754944e-38)))


def of_sklearn_text_pipeline() -> Case:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = sentences()
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression())
    pipeline.fit(texts, np.char.count(texts, "good") > np.char.count(texts, "bad"))
    return Case(from_sklearn(pipeline), texts, pipeline.predict_log_proba(texts))


def of_linen() -> Case:
    import flax.linen as nn
    import jax

    class Network(nn.Module):
        @nn.compact
        def __call__(self, inputs, train: bool):
            hidden = nn.BatchNorm(use_running_average=not train)(nn.relu(nn.Dense(8)(inputs)))
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(hidden))

    module, inputs = Network(), numbers()
    variables = module.init(jax.random.key(0), inputs[:1], train=False)
    logits = module.apply(variables, inputs, train=False)
    return Case(from_linen(module, variables, train=False), inputs, log_softmax(np.asarray(logits), axis=1))


def of_nnx() -> Case:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, inputs):
            return self.head(self.dropout(self.norm(nnx.relu(self.hidden(inputs)))))

    module, inputs = Network(nnx.Rngs(0)), numbers()
    adapter = from_nnx(module)  # made of a module in training mode
    module.eval()
    return Case(adapter, inputs, log_softmax(np.asarray(module(inputs)), axis=1))


def sentences() -> np.ndarray:
    """Texts of different lengths over a small vocabulary."""
    words = np.array(["good", "bad", "the", "film", "was", "not", "very", "plot"])
    rng = np.random.default_rng(2)
    return np.array([" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(NUM_EXAMPLES)])


def of_torch() -> Case:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = (torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
    module, inputs = torch.nn.Sequential(*layers).eval(), numbers()
    with torch.no_grad():
        log_probs = module(torch.tensor(inputs)).log_softmax(dim=1).numpy()
    return Case(from_torch(module), inputs, log_probs)


def onnx_forest(path: Path, inputs: np.ndarray, **options) -> np.ndarray:
    """Export a forest of scikit-learn, and return its own probabilities."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(inputs[:60], inputs[:60, :3].argmax(1))
    path.write_bytes(to_onnx(forest, inputs[:1], options=options).SerializeToString())
    return forest.predict_proba(inputs)


def of_onnx() -> Case:
    inputs = numbers()
    with TemporaryDirectory() as directory:
        probs = onnx_forest(Path(directory) / "forest.onnx", inputs, zipmap=False)
        adapter = read_onnx(Path(directory) / "forest.onnx", kind="probabilities")
    return Case(adapter, inputs, np.log(np.maximum(probs, 1.1754944e-38)))


def small_tokenizer():
    """A byte-level BPE tokenizer of a few hundred tokens, some of them of several letters."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=["<pad>", "<s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sentences().tolist(), trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>")


def of_sequence_classifier() -> Case:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer, texts = small_tokenizer(), sentences()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {0: "poor", 1: "fair", 2: "fine"}
    config = transformers.BertConfig(vocab_size=len(tokenizer), id2label=labels, initializer_range=1.0, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():  # one at a time: nothing is padded
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts.tolist()]
    return Case(from_sequence_classifier(model, tokenizer), texts, torch.stack(logits).log_softmax(dim=1).numpy())


def image_classifier():
    """A small vision transformer with random weights, and its image processor."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=3, initializer_range=0.3, **sizes)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    return transformers.ViTForImageClassification(config).eval(), processor


def of_image_classifier() -> Case:
    torch = pytest.importorskip("torch")
    model, processor = image_classifier()
    images = np.random.default_rng(0).integers(0, 256, (NUM_EXAMPLES, 20, 12, 3)).astype(np.uint8)
    with torch.no_grad():
        logits = [model(**processor(images=image, return_tensors="pt")).logits[0] for image in images]
    return Case(from_image_classifier(model, processor), images, torch.stack(logits).log_softmax(dim=1).numpy())


def language_model(tokenizer):
    """A small Llama with random weights."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), initializer_range=0.5, max_position_embeddings=128, **sizes
    )
    return transformers.LlamaForCausalLM(config).eval()


def word_log_prob(model, tokenizer, prompt: str, word: str) -> float:
    """Log probability of a word by the model's own loss, which is a mean over its tokens."""
    import torch

    tokens = tokenizer(prompt + word, return_tensors="pt")["input_ids"]
    length = len(tokenizer(prompt)["input_ids"])
    labels = tokens.clone()
    labels[:, :length] = -100
    with torch.no_grad():
        return -model(input_ids=tokens, labels=labels).loss.item() * (tokens.shape[1] - length)


def of_language_model() -> Case:
    tokenizer = small_tokenizer()
    model, texts = language_model(tokenizer), sentences()
    # Of one token, of several, and with a beginning in common.
    words = {"good": [" good"], "bad": [" bad", " bandy"], "neither": [" band"]}
    adapter = from_language_model(model, tokenizer, make_prompt("Film: {input}\nIt was", words))
    scores = np.array(
        [
            [word_log_prob(model, tokenizer, f"Film: {text}\nIt was", word) for of in words.values() for word in of]
            for text in texts.tolist()
        ]
    )
    logits = np.stack([scores[:, 0], np.logaddexp(scores[:, 1], scores[:, 2]), scores[:, 3]], axis=1)
    return Case(adapter, texts, log_softmax(logits, axis=1))


CASES: dict[str, Callable[[], Case]] = {
    "function": of_function,
    "scikit-learn forest": of_sklearn_forest,
    "scikit-learn text pipeline": of_sklearn_text_pipeline,
    "Flax linen": of_linen,
    "Flax nnx": of_nnx,
    "PyTorch": of_torch,
    "ONNX": of_onnx,
    "transformers sequence classifier": of_sequence_classifier,
    "transformers image classifier": of_image_classifier,
    "transformers language model": of_language_model,
}

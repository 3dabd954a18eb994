"""``mtbkd teach``, end to end, and on to what ``fit`` reads."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from mtbkd_jax.aligned_teachers import open_teachers
from mtbkd_jax.cli import main
from tests.adapters.table import numbers, onnx_forest

IDS = np.array([f"row {row}" for row in range(130)])

TEACHERS = """
import numpy as np
from mtbkd_jax.adapters import from_callable
double = from_callable(lambda inputs: 2 * inputs, class_names=["a", "b", "c", "d"])
needy = lambda: __import__("no_such_library")
"""


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=numbers(), ids=IDS, labels=np.zeros(130, int))
    (tmp_path / "teachers.py").write_text(TEACHERS)
    return tmp_path


def teach(folder, adapter, model, *options, out="out"):
    files = ["--data", str(folder / "data.npz"), "--out", str(folder / out)]
    main(["teach", "--adapter", adapter, "--model", str(folder / model), *files, *options])
    (outputs,) = open_teachers([str(folder / out)])
    return outputs


def test_an_onnx_file(folder, capsys):
    probs = onnx_forest(folder / "forest.onnx", numbers(), zipmap=False)
    outputs = teach(folder, "onnx", "forest.onnx", "--kind", "probabilities", "--name", "forest")
    assert outputs.names == ("forest",)
    order = np.random.default_rng(0).permutation(130)
    np.testing.assert_allclose(np.exp(outputs.logits(IDS[order])[:, 0]), probs[order], atol=1e-6)
    assert "130 examples, 3 classes" in capsys.readouterr().out


def test_a_python_file(folder):
    outputs = teach(folder, "python", "teachers.py:double")
    assert outputs.class_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(outputs.logits(IDS)[:, 0], 2 * numbers())


@pytest.mark.parametrize(
    ("adapter", "model", "options", "message"),
    [
        ("python", "teachers.py:double", ["--kind", "logits"], "--kind: python: found 'logits'"),
        ("python", "teachers.py:needy", [], "no module no_such_library.*Install what the file imports"),
        ("onnx", "none.onnx", [], "no such file"),
        ("python", "teachers.py:double", ["--batch-size", "0"], "batch_size: found 0"),
        ("language-model", "none", [], "--prompt: template: found ''"),
    ],
)
def test_mistakes_end_with_one_message(folder, capsys, adapter, model, options, message):
    with pytest.raises(SystemExit) as caught:
        teach(folder, adapter, model, *options)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (folder / "out").exists() or not any((folder / "out").iterdir())


def test_a_library_that_is_missing_is_named_with_its_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx_forest(folder / "forest.onnx", numbers())
    with pytest.raises(SystemExit):
        teach(folder, "onnx", "forest.onnx")
    assert "pip install 'mtbkd-jax[onnx]'" in capsys.readouterr().err


SLOW = """
import time
from mtbkd_jax.adapters import from_callable
def predict(inputs):
    if (inputs == SLOW_AT).any():
        print("far", flush=True)
        time.sleep(WAIT)
    return inputs
slow = from_callable(predict, source="slow")
"""


def test_a_sigterm_leaves_what_was_done(folder):
    (folder / "slow.py").write_text(f"SLOW_AT, WAIT = {float(numbers()[100, 0])!r}, 60\n" + SLOW)
    options = ["--data", str(folder / "data.npz"), "--out", str(folder / "out"), "--batch-size", "10"]
    command = ["teach", "--adapter", "python", "--model", f"{folder / 'slow.py'}:slow", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-c", "from mtbkd_jax.cli import main; main()", *command]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"far\n"
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert '"num_rows": 100' in (folder / "out" / "unfinished.json").read_text()

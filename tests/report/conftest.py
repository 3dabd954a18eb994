"""A finished run on small images, whose names would run as scripts if a page let them."""

import shutil

import numpy as np
import pytest

from mtbkd_jax.cli import main
from mtbkd_jax.report import report_page

SCRIPT = "<script>document.title = 'hacked'</script>"
CLASS_NAMES = [SCRIPT, "\"$x$\" & 'y'"]
QUICK = [
    *("--student.hidden", "4"),
    *("--settings.power", "0.5", "--settings.concentration", "5"),
    *("--settings.center-scale", "0.3", "--settings.wide-scale", "1"),
    *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-mode-steps", "50", "--sampling.num-burn-in", "50"),
    *("--sampling.num-draws", "20", "--sampling.thinning", "2"),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A run, the file that it learned from, and new examples as images and as texts."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 4, 4)).astype(np.float32)
    labels = (inputs[:, 0, 0] > 0).astype(np.int32)
    ids = np.array([f'row-{i}"><img src=x onerror=alert({i})>' for i in range(120)])
    names = np.array(CLASS_NAMES)
    few = np.where(np.arange(120) % 3, -1, labels)
    np.savez(folder / "data.npz", inputs=inputs, labels=few, ids=ids, class_names=names)
    new = {"inputs": inputs[::-1], "labels": labels[::-1] ^ (rng.random(120) < 0.1), "class_names": names}
    np.savez(folder / "images.npz", **new)
    texts = np.array([f"</td>{SCRIPT} text {i}" for i in range(120)])
    np.savez(folder / "texts.npz", **new, texts=texts)
    logits = np.stack([-inputs[:, 0, 0], inputs[:, 0, 0]], axis=1) * 2
    np.savez(folder / "a.npz", logits=logits, ids=ids)
    np.savez(folder / "b.npz", logits=logits + rng.normal(size=logits.shape), ids=ids)
    teachers = ["--teachers", f"<b>good</b>={folder / 'a.npz'}", f"noisy={folder / 'b.npz'}"]
    main(["fit", "--data", str(folder / "data.npz"), *teachers, "--out", str(folder / "run"), *QUICK])
    return folder


@pytest.fixture(scope="session")
def run(folder):
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    """Another run of the same content, to be spoilt."""
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(scope="session")
def page(folder, run):
    return report_page([run], data=folder / "images.npz")

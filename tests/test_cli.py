"""The commands, end to end on small files; every setting is given, so that nothing is searched."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.cli import main
from mtbkd_jax.draws import open_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.given_centers import write_params
from mtbkd_jax.run_log import read_log
from mtbkd_jax.runs import open_run
from mtbkd_jax.students import mlp

QUICK = [
    *("--student.hidden", "4"),
    *("--settings.power", "0.5", "--settings.concentration", "5"),
    *("--settings.center-scale", "0.3", "--settings.wide-scale", "1"),
    *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-mode-steps", "50", "--sampling.num-burn-in", "50"),
    *("--sampling.num-draws", "20", "--sampling.thinning", "2"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two classes on either side of a line; two teachers; one label in three."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 3)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32)
    ids = np.array([f"row-{i}" for i in range(120)])
    np.savez(folder / "data.npz", inputs=inputs, labels=np.where(np.arange(120) % 3, -1, labels), ids=ids)
    np.savez(folder / "test.npz", inputs=inputs, labels=labels)
    order = rng.permutation(120)
    logits = np.stack([-inputs[:, 0], inputs[:, 0]], axis=1) * 2
    np.savez(folder / "a.npz", logits=logits[order], ids=ids[order])
    np.savez(folder / "b.npz", logits=logits + rng.normal(size=logits.shape), ids=ids)
    return folder


def fit(files, out, *options):
    teachers = ["--teachers", f"good={files / 'a.npz'}", f"noisy={files / 'b.npz'}"]
    main(["fit", "--data", str(files / "data.npz"), *teachers, "--out", str(out), *options, *QUICK])


@pytest.fixture(scope="module")
def run(files):
    fit(files, files / "run", "--tensorboard")
    return files / "run"


def test_fit_leaves_a_complete_run(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json",
        "manifest.json",
        "selection.json",
        "metrics.json",
        "diagnostics.json",
        "components.json",
        "teachers.npz",
        "draws",
        "log.jsonl",
        "tensorboard",
    }
    assert {path.name for path in (run / "figures").iterdir()} == {"responsibilities.png", "traces.png"}
    record = np.load(run / "teachers.npz")
    np.testing.assert_allclose(record["weights"].sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(record["responsibilities"].sum(1), 1.0, rtol=1e-4)
    assert record["components"].tolist() == ["nobody", "good", "noisy"]


def test_the_log_has_the_phases_of_a_run_and_what_became_of_its_chains(run):
    lines = read_log(run)
    assert [line["phase"] for line in lines] == ["learning", *4 * ["sampling"], "writing", "finished"]
    chunks = [line for line in lines if "step" in line]
    assert [(line["step"], line["num_draws"]) for line in chunks] == [(40, 0), (50, 0), (90, 20)]
    assert {(line["num_steps"], line["num_planned"]) for line in chunks} == {(90, 20)}
    components = json.loads((run / "diagnostics.json").read_text())["components"]
    assert chunks[-1]["r_hat"] == pytest.approx(max(of["log_density_r_hat"] for of in components.values()))


def test_status_of_a_finished_run(run, capsys):
    main(["status", str(run)])
    assert "finished" in capsys.readouterr().out
    main(["status", str(run), "--json"])
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["num_draws"], status["num_planned"]) == ("finished", 20, 20)
    assert status["chunk"] == read_log(run)[4]


def test_scalars_are_refused_at_once_where_their_library_is_missing(files, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(SystemExit):
        fit(files, files / "no_library", "--tensorboard")
    assert "pip install tensorboardX" in capsys.readouterr().err
    assert not (files / "no_library").exists()


def test_the_same_seed_repeats_the_run_to_the_bit(files, run):
    fit(files, files / "again")
    first, second = (jax.tree.leaves(open_draws(path / "draws").positions()) for path in (run, files / "again"))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_draws_in_bfloat16_are_those_of_float32_rounded(files, run):
    fit(files, files / "rounded", "--draws", "bfloat16")
    exact, rounded = (jax.tree.leaves(open_draws(path / "draws").positions()) for path in (run, files / "rounded"))
    for a, b in zip(exact, rounded, strict=True):
        np.testing.assert_array_equal(a.astype(jnp.bfloat16).astype(jnp.float32), b)
    inputs = np.load(files / "test.npz")["inputs"]
    probs = [open_run(path).predict(inputs).probs for path in (run, files / "rounded")]
    np.testing.assert_allclose(*probs, atol=0.02)


@pytest.mark.parametrize("kind", ["predictions", "moments"])
def test_a_run_may_keep_the_predictions_of_probes_alone(files, run, kind, capsys):
    out = files / kind
    fit(files, out, "--draws", kind, "--probes", str(files / "test.npz"))
    opened, kept = open_run(out), np.load(out / "prediction.npz")
    # The same draws; the evidence of components may be another, since it is not found from the chains.
    expected = replace(open_run(run), chain_weights=opened.chain_weights).predict(np.load(files / "test.npz")["inputs"])
    assert "credible_upper" in kept or kind == "moments"
    for name in {"probs", "mean_deviance", "credible_upper", "epistemic"} & set(kept):
        np.testing.assert_allclose(kept[name], getattr(expected, name), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(kept[name], getattr(opened.kept_prediction(), name))

    diagnostics = [json.loads((path / "diagnostics.json").read_text()) for path in (run, out)]
    assert diagnostics[0]["median_r_hat"] == pytest.approx(diagnostics[1]["median_r_hat"], rel=1e-3)
    followed = [np.load(path / "teachers.npz")["responsibilities"] for path in (run, out)]
    if np.array_equal(opened.chain_weights, open_run(run).chain_weights):
        np.testing.assert_allclose(*followed, atol=1e-3)

    capsys.readouterr()
    main(["status", str(out), "--json"])
    status = json.loads(capsys.readouterr().out)
    assert (status["num_draws"], status["num_planned"]) == (20, 20)
    with pytest.raises(SystemExit):
        main(["predict", str(out), "--inputs", str(files / "test.npz"), "--output", str(files / "refused.npz")])
    message = " ".join(capsys.readouterr().err.split())
    assert f"{kind} of a probe set alone" in message
    assert "prediction.npz" in message
    assert not (files / "refused.npz").exists()


def test_a_run_that_keeps_parameters_has_no_kept_prediction(run):
    with pytest.raises(InputError, match="parameters"):
        open_run(run).kept_prediction()


def test_a_teacher_may_have_been_asked_about_a_part_of_the_examples_and_have_named_a_class_of_each(files, capsys):
    with np.load(files / "b.npz") as whole:
        log_probs, ids = np.asarray(jax.nn.log_softmax(whole["logits"][::2])), whole["ids"][::2]
    classes = log_probs.argmax(1, keepdims=True)
    fields = {"top_classes": classes, "top_log_probs": np.take_along_axis(log_probs, classes, axis=1)}
    np.savez(files / "half.npz", ids=ids, **fields)
    columns = ["--outputs", "top_log_probs", "--top-classes", "top_classes", "--num-classes", "2"]
    main(["import-teacher", str(files / "half.npz"), "--name", "half", *columns, "--out", str(files / "half_outputs")])
    out = files / "half"
    options = ["fit", "--data", str(files / "data.npz"), "--out", str(out), *QUICK, "--weighting", "uniform"]
    options += ["--teachers", f"good={files / 'a.npz'}", str(files / "half_outputs"), "--tail", "bucket"]
    with pytest.raises(SystemExit):
        main(options)
    assert "no outputs for 60 of 120 examples" in capsys.readouterr().err
    # Streamed, so that the windows have examples without the teacher as well.
    main([*options, "--missing-teachers", "mask", "--rows-in-memory", "80", "--sampling.batch-size", "32"])
    with np.load(out / "teachers.npz") as record:
        is_asked = np.array([int(name.partition("-")[2]) % 2 == 0 for name in record["ids"].tolist()])
        np.testing.assert_array_equal(record["weights"][~is_asked], np.array([[0.0, 1.0, 0.0]] * (~is_asked).sum()))
        np.testing.assert_array_equal(record["responsibilities"][~is_asked, 2], 0)
        assert (record["responsibilities"][is_asked, 2] > 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(open_draws(out / "draws").positions()))


def test_classes_can_be_ordered(files):
    out = files / "ordered"
    fit(files, out, "--student.ordered", "--weighting", "accuracy")
    main(["predict", str(out), "--inputs", str(files / "test.npz"), "--output", str(files / "ordered.npz")])
    with np.load(files / "ordered.npz") as said, np.load(files / "test.npz") as test:
        assert (said["probs"].argmax(1) == test["labels"]).mean() > 0.85
    positions = open_run(out).draws.positions()
    assert positions.cutpoints.shape == (4, 20, 1)


def test_a_center_can_be_given(files):
    params = mlp(num_features=3, hidden=(4,), num_classes=2).init(jax.random.key(0))
    # Far from what the labels say, and so narrow that the component is known by its chains.
    write_params(files / "center.safetensors", jax.tree.map(lambda leaf: 0 * leaf + 30, params))
    fit(files, files / "given", "--centers", f"noisy={files / 'center.safetensors'}")
    components = json.loads((files / "given" / "components.json").read_text())["components"]
    assert [component["name"] for component in components] == ["wide", "pool", "good", "noisy"]
    assert components[3]["probability"] < 1e-3
    assert components[3]["chains"] == []
    manifest = json.loads((files / "given" / "manifest.json").read_text())
    assert str(files / "center.safetensors") in manifest["input_sha256"]


def test_a_center_of_no_teacher_is_refused(files, capsys):
    with pytest.raises(SystemExit):
        fit(files, files / "refused", "--centers", "nobody=center.safetensors")
    assert "The teachers are good, noisy" in " ".join(capsys.readouterr().err.split())


def test_a_run_opens_in_arviz(files, run):
    data = np.load(files / "data.npz")
    idata = open_run(run).to_arviz(data["inputs"], data["labels"], ids=data["ids"], key=jax.random.key(0))
    assert idata.posterior["log_prob"].shape == (4, 20, 120, 2)
    assert idata.log_likelihood["label"].shape == (4, 20, 40)
    assert idata.posterior["class"].values.tolist() == ["0", "1"]


def test_predict_takes_raw_inputs_and_writes_what_it_says(files, run):
    output = files / "prediction.npz"
    main(["predict", str(run), "--inputs", str(files / "test.npz"), "--output", str(output)])
    prediction = np.load(output)
    assert {name: prediction[name].shape for name in prediction} == {
        "probs": (120, 2),
        "mean_deviance": (120,),
        "credible_upper": (120,),
        "epistemic": (120,),
    }
    assert (prediction["probs"].argmax(1) == np.load(files / "test.npz")["labels"]).mean() > 0.9


def test_metrics_say_whom_the_student_follows_and_how_surely(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"probability", "standard_error"} <= set(metrics["weight_space_components"]["components"][0])
    followed = metrics["responsibilities"]
    assert followed["components"] == ["nobody", "good", "noisy"]
    record = np.load(run / "teachers.npz")
    np.testing.assert_allclose(followed["all"]["mean"], record["responsibilities"].mean(0), rtol=1e-4)
    for mean, (low, high) in zip(followed["all"]["mean"], followed["all"]["interval"], strict=True):
        assert low <= mean <= high
    np.testing.assert_allclose(
        [of["mean"] for of in followed["by_class"].values()], record["responsibilities_by_class"], rtol=1e-6
    )


def test_evaluate_tells_inputs_from_outside_by_uncertainty(files, run):
    outside = files / "outside.npz"
    np.savez(outside, inputs=np.zeros((50, *np.load(files / "test.npz")["inputs"].shape[1:]), np.float32))
    out = files / "with_outside"
    main(["evaluate", str(run), "--data", str(files / "test.npz"), "--outside", str(outside), "--out", str(out)])
    # The boundary runs through zero, where the student is least sure.
    assert json.loads((out / "metrics.json").read_text())["out_of_distribution_auroc"] > 0.9


def test_evaluate_writes_metrics_and_figures(files, run):
    main(["evaluate", str(run), "--data", str(files / "test.npz")])
    folder = run / "evaluations" / "test"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9
    assert {"coverage_85", "negative_log_likelihood", "expected_calibration_error"} <= set(metrics)
    assert (folder / "figures" / "reliability.png").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["evaluate", "RUN", "--data", "FILES/a.npz"], id="no labels in the file"),
        pytest.param(["predict", "FILES", "--inputs", "FILES/test.npz", "--output", "FILES/x.npz"], id="no run"),
        pytest.param(["predict", "RUN", "--inputs", "FILES/test.npz", "--output", "FILES/a.npz"], id="output exists"),
        pytest.param(
            ["fit", "--data", "FILES/data.npz", "--teachers", "a=FILES/a.npz", "--out", "RUN"], id="run exists"
        ),
        pytest.param(
            ["fit", "--data", "FILES/data.npz", "--teachers", "a=FILES/none.npz", "--out", "FILES/n"],
            id="no teacher file",
        ),
        pytest.param(
            ["fit", "--data", "FILES/data.npz", "--teachers", "--out", "FILES/n"],
            id="no teacher",
        ),
        *(
            pytest.param(
                ["fit", "--data", "FILES/data.npz", "--teachers", "a=FILES/a.npz", "--out", "FILES/n", option, value],
                id=f"{option} {value}",
            )
            for option, value in [
                ("--settings.power", "-1"),
                ("--softening", "0"),
                ("--num-folds", "1"),
                ("--sampling.thinning", "0"),
                ("--sampling.num-draws", "4"),
                ("--student.hidden", "0"),
                ("--seed", str(2**64)),
                ("--checkpoint-seconds", "nan"),
                ("--draws", "moments"),
                ("--probes", "FILES/test.npz"),
            ]
        ),
        pytest.param(["predict", "RUN", "--inputs", "FILES", "--output", "FILES/x.npz"], id="inputs are a directory"),
        pytest.param(
            ["predict", "RUN", "--inputs", "FILES/test.npz", "--output", "FILES/x.npz", "--level", "2"], id="level"
        ),
        pytest.param(["run", "digits", "--out", "FILES"], id="not empty"),
        pytest.param(["run", "digits", "--out", "FILES/n", "--num-labels", "601"], id="too many labels"),
    ],
)
def test_a_mistake_ends_with_one_message_and_status_2(files, run, arguments, capsys):
    arguments = [argument.replace("RUN", str(run)).replace("FILES", str(files)) for argument in arguments]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert not (files / "n" / "config.json").exists()
    message = capsys.readouterr().err
    assert message.startswith("mtbkd: ")
    assert "Traceback" not in message

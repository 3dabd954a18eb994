"""The jobs behind the commands: from files to a run directory, and from there to predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from mtbkd_jax import storage, teacher_layout
from mtbkd_jax.aligned_teachers import align_teachers, open_teachers
from mtbkd_jax.baselines import distil_classically
from mtbkd_jax.checks import check_example_shape, check_labels, check_not_negative, check_seed, check_whole
from mtbkd_jax.configuration import DistillationConfig, check_configuration
from mtbkd_jax.data import (
    Dataset,
    DatasetOnDisk,
    Standardizer,
    open_dataset,
    read_dataset,
    read_inputs,
    sha256_of_file,
)
from mtbkd_jax.diagnostics import LEAST_DRAWS
from mtbkd_jax.digits import digits_study
from mtbkd_jax.distillation import Distillation, is_streamed, learn, unlabelled_rows
from mtbkd_jax.draw_chunks import ID_BYTES
from mtbkd_jax.draws import DrawStore
from mtbkd_jax.errors import InputError
from mtbkd_jax.folds import are_enough
from mtbkd_jax.given_centers import read_params
from mtbkd_jax.judging import judged_of
from mtbkd_jax.kept_predictions import KeptPredictions, Probing
from mtbkd_jax.lessons import Lessons
from mtbkd_jax.npz_files import read_npz
from mtbkd_jax.posterior_sampling import SampledPosterior, follow_sampling, sample_posterior
from mtbkd_jax.prediction import flatten_chains, predictive_log_probs
from mtbkd_jax.processes import from_first, is_first
from mtbkd_jax.progress import progress_bar
from mtbkd_jax.rows import MappedRows
from mtbkd_jax.run_log import RunLog, check_tensorboard, log_of_run
from mtbkd_jax.runs import (
    PosteriorResponsibilities,
    StudentConfig,
    all_metrics,
    components_to_json,
    finish_run,
    open_run,
    write_evaluation,
)
from mtbkd_jax.sampling import ChunkReport, Progress
from mtbkd_jax.selection import Choice
from mtbkd_jax.students import Student, num_parameters
from mtbkd_jax.teachers import TeacherOutputs
from mtbkd_jax.trust import learned_trust
from mtbkd_jax.types import Key, Params
from mtbkd_jax.uncertainty import COVERAGE_LEVELS
from mtbkd_jax.unfinished import (
    LearnedFiles,
    checkpoints_of_run,
    draws_of_run,
    existing_draws_of_run,
    is_finished,
    kept_predictions_of_run,
    mark_finished,
    unfinished_run,
)
from mtbkd_jax.weighting import (
    WeightingRule,
    accuracy_by_class_weighting,
    confidence_aware_weighting,
    entropy_weighting,
    fixed_weighting,
    uniform_weighting,
)
from mtbkd_jax.windows import UnlabelledRows

if TYPE_CHECKING:
    from mtbkd_jax.cli import Fit, Study

DIGITS_STUDENT = StudentConfig(hidden=(32,))
_MOST_CLASSES_PRINTED = 20


def fit(config: "Fit") -> None:
    """Distil a student on the user's arrays and write the run."""
    console = Console()
    _check_options(config)
    check_configuration(config.distillation)
    check_whole("sampling", LEAST_DRAWS, num_draws=config.distillation.sampling.num_draws)  # for the diagnostics
    streams = config.distillation.rows_in_memory is not None and is_streamed(
        read_npz(config.data, required=("labels",))["labels"], config.distillation
    )
    dataset: Dataset | DatasetOnDisk = open_dataset(config.data) if streams else read_dataset(config.data)
    teachers = open_teachers(config.teachers, kind=config.kind, by_rows=streams)
    for teacher in teachers:
        # Where the rows are shared out, all of them are looked at by the first process alone.
        if isinstance(teacher, TeacherOutputs) and (is_first() or not streams):
            teacher.verify()
    aligned = align_teachers(
        teachers,
        ids=dataset.ids,
        class_names=dataset.class_names,
        by_rows=streams,
        missing=config.distillation.missing_teachers,
    )
    num_classes = aligned.logits.shape[2]
    labels = check_labels(dataset.labels, num_classes, str(config.data))
    class_names = aligned.class_names or tuple(map(str, range(num_classes)))
    standardizer = _standardizer(dataset.inputs, str(config.data), streams) if config.standardize else None
    inputs = _standardised(dataset.inputs, standardizer, streams)
    probes = _read_probes(config, inputs.shape[1:], standardizer)
    student = config.student.build(inputs.shape[1:], num_classes)
    rule, weighting = _weighting(config, labels, aligned.names)
    given_centers = _given_centers(config.centers, student, aligned.names)

    learn_key, sample_key = jax.random.split(jax.random.key(config.seed))
    teach = partial(
        learn,
        learn_key,
        inputs,
        labels,
        aligned.logits,
        student,
        teacher_softening=aligned.softening,
        weighting=weighting,
        given_centers=given_centers,
        groups=dataset.groups,
        config=config.distillation,
        store=LearnedFiles(config.out / "learned"),
    )
    unlabelled = unlabelled_rows(
        inputs,
        labels,
        aligned.logits,
        teacher_softening=aligned.softening,
        weighting=weighting,
        config=config.distillation,
    )
    if not is_first():
        _follow_fit(config, teach, sample_key, student, unlabelled)
        return
    digests = {str(config.data): sha256_of_file(config.data)} | _digests([*config.teachers, *config.centers])
    digests |= {} if config.probes is None else {str(config.probes): sha256_of_file(config.probes)}
    with unfinished_run(config.out, config, digests, resume=config.resume) as path:
        if bool(from_first(is_finished(path))):
            console.print(f"{path} is finished: nothing is left to do.")
            return
        with log_of_run(path, tensorboard=config.tensorboard) as log:
            console.print("Learning whom to trust, and choosing the priors' settings by cross-validation ...")
            log.begin("learning")
            lessons, order, choice = teach()
            sink = _sink(config, path, student, lessons, order, choice, probes)
            posterior = _sample(
                sample_key,
                path,
                student,
                lessons,
                choice,
                config.distillation,
                sink,
                config.checkpoint_seconds,
                log,
                unlabelled,
            )
            log.begin("writing")
            result = Distillation(student, lessons, order, choice, posterior)
            diagnostics, followed = finish_run(
                path,
                result,
                student=config.student,
                seed=config.seed,
                ids=dataset.ids,
                teacher_names=aligned.names,
                class_names=class_names,
                standardizer=standardizer,
                digests=digests,
            )
            storage.write_json(
                path / "metrics.json",
                {"weighting": rule}
                | _metrics_of_fit(result, labels)
                | _whom(result, followed, aligned.names, class_names),
            )
            log.begin("finished")
        mark_finished(path)
    if config.weighting == "default" and rule == "entropy":
        console.print("There are too few labels to learn trust from: the teachers are weighed by their entropy.")
    _print_choice(console, result)
    _print_components(console, result, aligned.names)
    console.print(_responsibilities(followed, aligned.names, class_names))
    console.print(diagnostics.verdict)
    console.print(f"Wrote {path}")


def _standardizer(inputs: Any, where: str, streams: bool) -> Standardizer:
    """That of the training inputs; where they are streamed, the first process reads them, and tells the others."""
    if not streams:
        return Standardizer.fit(inputs)
    nothing = np.zeros(inputs.shape[1:], np.float32)
    found = Standardizer.fit_rows(inputs, where, "inputs") if is_first() else Standardizer(nothing, nothing)
    return Standardizer(*from_first((found.mean, found.scale)))


def _standardised(inputs: Any, standardizer: Standardizer | None, streams: bool) -> Any:
    if standardizer is None:
        return inputs
    return MappedRows(inputs, standardizer, inputs.shape[1:]) if streams else standardizer(inputs)


def _follow_fit(
    config: "Fit", teach: Callable[[], Any], sample_key: Key, student: Student, unlabelled: UnlabelledRows | None
) -> None:
    """What the other processes do: read what the first one has learned, and sample with it."""
    is_run_finished = bool(from_first(False))
    if is_run_finished:
        return
    store = _opened_with_first(config.out, student)  # comes when all is learned
    lessons, _, choice = teach()
    with checkpoints_of_run(config.out, seconds_between=config.checkpoint_seconds) as checkpoints:
        follow_sampling(
            sample_key,
            student,
            lessons,
            choice.settings,
            powers=choice.powers,
            sink=store,
            config=config.distillation,
            unlabelled=unlabelled,
            checkpoints=checkpoints,
        )


def _announce(store: DrawStore | KeptPredictions) -> None:
    """Tell the other processes that they may open the store."""
    from_first(np.frombuffer(bytes.fromhex(store.identity), np.uint8))


def _opened_with_first(out: Path, student: Student) -> DrawStore:
    """The store that the first process announces, once it does.

    Raises:
      InputError: if this process sees another one, or none.
    """
    expected = from_first(np.zeros(ID_BYTES, np.uint8)).tobytes().hex()
    store = existing_draws_of_run(out, student)
    if store is None or store.identity != expected:
        found = "no draws" if store is None else f"draws of the run {store.identity}"
        action = "Put the run on a file system that all processes share."
        raise InputError(str(out), "--out", found, f"those of the run {expected}, which the first process sees", action)
    return store


def predict_file(run: Path, inputs: Path, output: Path, *, level: float) -> None:
    """Predict the inputs of a file and write the prediction to another, which must not exist."""
    storage.check_new_file(output)  # now, and not only after the work
    prediction = open_run(run).predict(read_inputs(inputs), level=level)
    with storage.new_file(output) as file:
        np.savez_compressed(file, **prediction._asdict())
    Console().print(f"Wrote {output}: {len(prediction.probs)} examples")


def evaluate_file(run: Path, data: Path, out: Path, *, outside: Path | None = None) -> None:
    """Score a run on a labelled file, and on inputs from outside what it was trained for."""
    opened = open_run(run)
    dataset = read_dataset(data)
    labels = check_labels(dataset.labels, len(opened.class_names), str(data))
    if dataset.class_names not in (None, opened.class_names):
        raise InputError(
            str(data),
            "class_names",
            str(dataset.class_names),
            str(opened.class_names),
            "Number the labels in the order of the run's classes.",
        )
    outside_inputs = None if outside is None else read_inputs(outside)
    path = storage.new_directory(out)
    metrics = write_evaluation(path, opened, dataset.inputs, labels, outside=outside_inputs)
    console = Console()
    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), "not defined" if value is None else f"{value:.4f}")
    console.print(table)
    console.print(f"Wrote {path}")


def run_digits(config: "Study") -> None:
    """The main job: scikit-learn's digits, three expert teachers, a hundred labels."""
    console = Console()
    _check_options(config)
    with unfinished_run(config.out, config, {}, resume=config.resume) as path:
        if is_finished(path):
            console.print(f"{path} is finished: nothing is left to do.")
            return
        with log_of_run(path, tensorboard=config.tensorboard) as log:
            _run_digits(config, path, console, log)
            log.begin("finished")
        mark_finished(path)


def _check_options(config: "Fit | Study") -> None:
    check_seed(config.seed, "--seed")
    check_not_negative(checkpoint_seconds=config.checkpoint_seconds)
    if config.tensorboard:
        check_tensorboard()


def _run_digits(config: "Study", path: Path, console: Console, log: RunLog) -> None:
    console.print("Training the teachers ...")
    log.begin("training teachers")
    study = digits_study(seed=config.seed, num_labels=config.num_labels)
    standardizer = Standardizer.fit(study.pool_inputs)
    inputs, test_inputs = standardizer(study.pool_inputs), standardizer(study.test_inputs)
    student = DIGITS_STUDENT.build((64,), 10)
    distillation_config = DistillationConfig()

    console.print("Learning whom to trust, and choosing the priors' settings by cross-validation ...")
    log.begin("learning")
    keys = jax.random.split(jax.random.key(config.seed), 4)
    lessons, order, choice = learn(
        keys[0],
        inputs,
        study.pool_labels,
        study.pool_teacher_logits,
        student,
        config=distillation_config,
        store=LearnedFiles(path / "learned"),
    )
    sampling = distillation_config.sampling
    sink = draws_of_run(path, student, num_chains=sampling.num_chains, num_draws=sampling.num_draws)
    posterior = _sample(
        keys[1], path, student, lessons, choice, distillation_config, sink, config.checkpoint_seconds, log
    )
    with _observed("sampling without teachers", log) as progress:
        plain = sample_posterior(
            keys[2], student, lessons, choice.no_teacher, powers=None, config=distillation_config, progress=progress
        )
    log.begin("classical distillation")
    classical = distil_classically(keys[3], student, lessons, distillation_config)

    log.begin("writing")
    result = Distillation(student, lessons, order, choice, posterior)
    diagnostics, followed = finish_run(
        path,
        result,
        student=DIGITS_STUDENT,
        seed=config.seed,
        ids=study.pool_ids,
        teacher_names=study.teacher_names,
        class_names=study.class_names,
        standardizer=standardizer,
        digests={},
        probes=test_inputs,
    )
    whom = _whom(result, followed, study.teacher_names, study.class_names)
    metrics = write_evaluation(path, open_run(path), study.test_inputs, study.test_labels, besides=whom)
    size = num_parameters(student)
    rows = {
        f"teacher: {name}": (count, all_metrics(logits[None], study.test_labels))
        for name, count, logits in zip(
            study.teacher_names,
            study.teacher_parameter_counts,
            np.swapaxes(np.asarray(jax.nn.log_softmax(study.test_teacher_logits)), 0, 1),
            strict=True,
        )
    }
    plain_log_probs = predictive_log_probs(
        student,
        flatten_chains(plain.run.positions),
        test_inputs,
        temperature=choice.no_teacher.prediction_temperature,
    )
    rows["no teacher"] = (size, all_metrics(plain_log_probs, study.test_labels, plain.draw_weights))
    rows["classical KD"] = (
        size,
        all_metrics(
            predictive_log_probs(
                student,
                jax.tree.map(lambda leaf: leaf[None], classical.params),
                test_inputs,
                temperature=classical.prediction_temperature,
            ),
            study.test_labels,
        ),
    )
    rows["MT-BKD"] = (size, metrics)
    storage.write_json(
        path / "table.json",
        {name: {"parameters": count} | values for name, (count, values) in rows.items()}
        | {
            "classical KD settings": {
                name: getattr(classical, name) for name in ("strength", "scale", "prediction_temperature")
            }
        },
    )
    console.print(_comparison(rows))
    _print_choice(console, result)
    _print_components(console, result, study.teacher_names)
    console.print(_responsibilities(followed, study.teacher_names, study.class_names))
    console.print(diagnostics.verdict)
    for file in sorted(path.rglob("*.png")) + sorted(path.glob("*.json")):
        console.print(str(file), soft_wrap=True)
    console.print(f"Wrote {path}", soft_wrap=True)


def _sample(
    key: Key,
    path: Path,
    student: Student,
    lessons: Lessons,
    choice: Choice,
    config: DistillationConfig,
    sink: DrawStore | KeptPredictions,
    checkpoint_seconds: float,
    log: RunLog,
    unlabelled: UnlabelledRows | None = None,
) -> SampledPosterior:
    """Sample the posterior of the settings chosen; the draws are on the disk, and so is where the chains stand."""
    _announce(sink)
    with (
        checkpoints_of_run(path, seconds_between=checkpoint_seconds) as checkpoints,
        _observed("sampling", log) as progress,
    ):
        return sample_posterior(
            key,
            student,
            lessons,
            choice.settings,
            powers=choice.powers,
            config=config,
            unlabelled=unlabelled,
            sink=sink,
            checkpoints=checkpoints,
            progress=progress,
        )


@contextmanager
def _observed(phase: str, log: RunLog) -> Iterator[Progress]:
    """What shows a phase of sampling on the terminal and writes it to the log."""
    log.begin(phase)
    with progress_bar(phase) as show:

        def observe(report: ChunkReport) -> None:
            show(report)
            log.report(report)

        yield observe


def _sink(
    config: "Fit",
    path: Path,
    student: Student,
    lessons: Lessons,
    order: np.ndarray,
    choice: Choice,
    probes: np.ndarray | None,
) -> DrawStore | KeptPredictions:
    """Where the draws go, or what is kept of them."""
    sampling = config.distillation.sampling
    sizes = {"num_chains": sampling.num_chains, "num_draws": sampling.num_draws}
    if probes is None:
        return draws_of_run(path, student, **sizes, storage_type=config.draws)
    judged = judged_of(lessons, order, sampling.num_draws)
    probing = Probing(student, probes, float(choice.settings.prediction_temperature), judged)
    return kept_predictions_of_run(path, config.draws, probing, **sizes)


def _read_probes(
    config: "Fit", input_shape: tuple[int, ...], standardizer: Standardizer | None
) -> Float[np.ndarray, "probes ..."] | None:
    """The standardised probes of a run that keeps no parameters; None for one that does, and predicts anything."""
    needs_probes = config.draws in ("predictions", "moments")
    if needs_probes and jax.process_count() > 1:
        found, expected = f"{config.draws}, by {jax.process_count()} processes", "float32 or bfloat16"
        raise InputError("--draws", "draws", found, expected, "Keep the parameters, or sample by one process.")
    if needs_probes != (config.probes is not None):
        found = f"{config.probes} with --draws {config.draws}"
        expected = "a file with --draws predictions and --draws moments, and none otherwise"
        raise InputError("--probes", "probes", found, expected, "Parameters predict any inputs, by `mtbkd predict`.")
    if config.probes is None:
        return None
    probes = read_inputs(config.probes)
    check_example_shape(probes, input_shape, str(config.probes))
    return probes if standardizer is None else standardizer(probes)


def _weighting(config: "Fit", labels: np.ndarray, teacher_names: Sequence[str]) -> tuple[str, WeightingRule]:
    """The rule that weighs the teachers, and its name; the default is another where labels are few."""
    if (config.weighting == "fixed") != bool(config.weights):
        raise InputError(
            "--weights",
            "weights",
            str(config.weights),
            "one number a teacher with --weighting fixed, and none otherwise",
            f"The teachers are {', '.join(teacher_names)}.",
        )
    if config.weighting == "fixed":
        return config.weighting, fixed_weighting(config.weights)
    name = config.weighting
    if name == "default":
        name = "trust" if are_enough(int((labels >= 0).sum()), config.distillation.num_folds) else "entropy"
    rules = {
        "trust": learned_trust(num_folds=config.distillation.num_folds),
        "accuracy": accuracy_by_class_weighting(),
        "confidence": confidence_aware_weighting(),
        "entropy": entropy_weighting(),
        "uniform": uniform_weighting(),
    }
    return name, rules[name]


def _given_centers(specs: Sequence[str], student: Student, teacher_names: Sequence[str]) -> dict[int, Params]:
    template = jax.eval_shape(student.init, jax.random.key(0))
    centers = {}
    for spec in specs:
        name, _, path = spec.partition("=")
        if name not in teacher_names or not path:
            action = f"The teachers are {', '.join(teacher_names)}."
            raise InputError("--centers", "name", spec, "the name of a teacher, =, and a path", action)
        centers[teacher_names.index(name)] = read_params(path, template)
    return centers


def _digests(specs: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file, and of what describes the content of each directory."""
    paths = [Path(spec.partition("=")[2] or spec) for spec in specs]
    described_by = {path: path / teacher_layout.MANIFEST for path in paths if path.is_dir()}
    described_by |= {path: file for path in described_by if (file := path / "_METADATA").exists()}
    return {str(path): sha256_of_file(described_by.get(path, path)) for path in paths}


def _metrics_of_fit(result: Distillation, labels: np.ndarray) -> dict[str, object]:
    """Of a run on these labels, some of whose examples may have been streamed."""
    stands_for = result.lessons.examples.stands_for
    streamed = {} if stands_for is None else {"examples_in_memory": int(stands_for.size)}
    chosen = result.choice.to_json()
    return streamed | {
        "examples": int(labels.size),
        "labelled": int((labels >= 0).sum()),
        "cross_validated_nll": min(
            (c.nll for c in result.choice.curve if c.settings == result.choice.settings), default=None
        ),
        "settings": chosen["chosen"],
        "powers": chosen["powers"],
        "mean_weights": np.average(np.exp(result.lessons.log_weights), axis=0, weights=stands_for).tolist(),
        "chains_stopped_at_step": result.posterior.run.failed_at.tolist(),
    }


def _whom(
    result: Distillation, followed: PosteriorResponsibilities, teacher_names: Sequence[str], class_names: Sequence[str]
) -> dict[str, object]:
    """Which teacher the student ended up trusting, and where, for ``metrics.json``."""
    return {
        "weight_space_components": components_to_json(result.posterior, teacher_names),
        "responsibilities": followed.to_json(teacher_names, class_names),
    }


def _responsibilities(
    followed: PosteriorResponsibilities, teacher_names: Sequence[str], class_names: Sequence[str]
) -> Table:
    """Whom the student follows, with 90 % intervals; one row where there are more classes than are read at a glance."""
    table = Table("whom the student follows", "nobody", *teacher_names)

    def add(name: str, mean: np.ndarray, interval: np.ndarray) -> None:
        cells = (f"{m:.2f} ({low:.2f}-{high:.2f})" for m, low, high in zip(mean, *interval, strict=True))
        table.add_row(name, *cells)

    add("all examples", followed.mean_of_all, followed.interval_of_all)
    if len(class_names) <= _MOST_CLASSES_PRINTED:
        for label, name in enumerate(class_names):
            if np.isfinite(followed.mean_by_class[label]).all():
                add(name, followed.mean_by_class[label], followed.interval_by_class[:, label])
    return table


def _print_choice(console: Console, result: Distillation) -> None:
    settings = result.choice.settings
    how = "Chosen on the labels" if result.choice.curve else "As given"
    temperatures = (
        f"a temperature of {settings.temperature:g} for the posterior and of {settings.prediction_temperature:g} for "
        "predictions"
    )
    if settings.uses_teachers:
        powers = result.choice.powers
        power = (
            f"power {settings.power:g}"
            if powers is None
            else "powers " + ", ".join(f"{value:g}" for value in powers.values) + " (averaged)"
        )
        around = (
            "no centers"
            if np.isinf(settings.center_scale)
            else f"a scale of {settings.center_scale:.3g} around the centers"
        )
        console.print(
            f"{how}: {power}, concentration {settings.concentration:g}, {around}, "
            f"a wide scale of {settings.wide_scale:.3g}, {temperatures}."
        )
    else:
        console.print(f"{how}: no teacher, with a scale of {settings.wide_scale:.3g}, {temperatures}.")
    if (failed := result.posterior.run.failed_at >= 0).any():
        console.print(
            f"{failed.sum()} of {failed.size} chains were stopped and left out: their density was not finite."
        )


def _print_components(console: Console, result: Distillation, teacher_names: Sequence[str]) -> None:
    """Whose parameters the posterior lies around, where the prior has centers."""
    of = components_to_json(result.posterior, teacher_names)
    if result.posterior.is_stacked:
        weights = ", ".join(f"{weight:.2f}" for weight in result.posterior.chain_weights)
        console.print(f"The chains are weighed by stacking, by how well they predict left-out labels: {weights}.")
    if len(of["components"]) > 1:
        probabilities = ", ".join(
            f"{c['name']} {c['probability']:.3f} ± {c['standard_error']:.3f}" for c in of["components"]
        )
        is_rough = of["method"] == "laplace" and len(set(result.posterior.component_of_chain.tolist())) > 1
        method = of["method"] + (", which is rough" if is_rough else "")
        console.print(f"Probability of each component of the weight-space prior (by {method}): {probabilities}.")
    if damped := [component["name"] for component in of["components"] if component["is_damped"]]:
        console.print(
            f"The posterior is not concave at the mode of {', '.join(damped)}: the curvature was damped, so that the "
            "evidence there by Laplace is rough."
        )


def _comparison(rows: Mapping[str, tuple[int, Mapping[str, float | None]]]) -> Table:
    columns = ("accuracy", "negative_log_likelihood", "expected_calibration_error")
    coverages = [f"coverage_{round(100 * level)}" for level in COVERAGE_LEVELS]
    table = Table(
        "", "accuracy", "NLL", "ECE", *(f"cover .{round(100 * level)}" for level in COVERAGE_LEVELS), "parameters"
    )
    for name, (count, metrics) in rows.items():
        values = (metrics[column] for column in (*columns, *coverages))
        table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values), f"{count:,}")
    return table

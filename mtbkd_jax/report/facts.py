"""What the files of a finished run say, read once and checked, so that the page has nothing left to doubt.

Besides its manifest, a run's files of JSON carry no digest: what was cut off or edited is refused here by its name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Shaped

from mtbkd_jax import storage
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.npz_files import read_npz
from mtbkd_jax.runs import Run, open_run
from mtbkd_jax.selection import Choice
from mtbkd_jax.unfinished import CONFIG, standing_of

Metrics = Mapping[str, float | None]
Parsed = TypeVar("Parsed")


class Mixing(NamedTuple):
    """Whether chains of one component have mixed; None where a number is not defined."""

    has_mixed: bool
    verdict: str
    numbers: Metrics


class Component(NamedTuple):
    """A component of the weight-space prior and how probable it is."""

    name: str
    probability: float
    standard_error: float
    chains: tuple[int, ...]


class Following(NamedTuple):
    """Whom the student trusts and follows among the training examples; column 0 is "nobody".

    Attributes:
      ids: of the training examples.
      components: "nobody" and the teachers' names.
      weights: the trust.
      responsibilities: how far the student follows each; NaN where a run knows it of some examples only.
      interval: its ends at 5 % and 95 % of the posterior.
      by_class: mean over the labelled examples of each class, NaN where there is none.
      interval_by_class: of that mean.
    """

    ids: Shaped[np.ndarray, " examples"]
    components: tuple[str, ...]
    weights: Float[np.ndarray, "examples components"]
    responsibilities: Float[np.ndarray, "examples components"]
    interval: Float[np.ndarray, "2 examples components"]
    by_class: Float[np.ndarray, "classes components"]
    interval_by_class: Float[np.ndarray, "2 classes components"]


class RunFacts(NamedTuple):
    """A finished run.

    Attributes:
      name: what the page calls it.
      run: opened to predict from.
      config: what was asked for.
      input_digests: SHA-256 of each input file.
      versions: of the libraries that it was made with.
      metrics: figures of merit that it recorded.
      methods: figures of merit of each method that a study compared, by its name; none for other runs.
      evaluations: the same of each labelled file that it was evaluated on afterwards.
      mixing: of the chains of the most probable component.
      mixing_of_component: of each component that was sampled.
      stopped_chains: the step at which each failed.
      components: of the weight-space prior.
      evidence_method: how their probabilities were found.
      following: whom the student trusts and follows.
      choice: the settings, and how every candidate did.
    """

    name: str
    run: Run
    config: Mapping[str, Any]
    input_digests: Mapping[str, str]
    versions: Mapping[str, str]
    metrics: Metrics
    methods: Mapping[str, Metrics]
    evaluations: Mapping[str, Metrics]
    mixing: Mixing
    mixing_of_component: Mapping[str, Mixing]
    stopped_chains: Mapping[str, int]
    components: tuple[Component, ...]
    evidence_method: str
    following: Following
    choice: Choice

    @property
    def is_digits(self) -> bool:
        """Whether it is the digits study, whose images come with scikit-learn."""
        return self.config.get("name") == "digits"


def read_facts(path: Path) -> RunFacts:
    """Read a finished run.

    Raises:
      InputError: if there is no run, or it is not finished.
      CorruptDataError: if a file was truncated or altered.
    """
    if not standing_of(path).is_finished:
        action = "Wait for its end, which `mtbkd status` foretells, or give the command that began it, with --resume."
        raise InputError(str(path), "state", "an unfinished run", "a finished one", action)
    run = open_run(path)
    manifest = storage.read_json(path / "manifest.json")
    mixing, of_component, stopped = _read(path / "diagnostics.json", _diagnostics)
    method, components = _read(path / "components.json", _components)
    config = _read(path / CONFIG, dict)
    has_methods = (path / "table.json").exists()
    return RunFacts(
        name=str(path),
        run=run,
        config={name: value for name, value in config.items() if name != "input_sha256"},
        input_digests=manifest["input_sha256"],
        versions=manifest["versions"] | {"python": manifest["python"]},
        metrics=_read(path / "metrics.json", _numbers),
        methods=_read(path / "table.json", _methods) if has_methods else {},
        evaluations={
            file.parent.name: _read(file, _numbers) for file in sorted((path / "evaluations").glob("*/metrics.json"))
        },
        mixing=mixing,
        mixing_of_component=of_component,
        stopped_chains=stopped,
        components=components,
        evidence_method=method,
        following=_following(path / "teachers.npz", len(run.class_names)),
        choice=_read(path / "selection.json", Choice.from_json),
    )


def _read(path: Path, parse: Callable[[Any], Parsed]) -> Parsed:
    content = storage.read_json(path)
    try:
        return parse(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        found, expected = f"something else ({error!r})", "what a finished run has there"
        raise CorruptDataError(str(path), "content", found, expected, storage.COPY_AGAIN) from error


def _numbers(content: Mapping[str, Any]) -> Metrics:
    """Those values that are numbers, or are not defined."""
    return {
        name: None if value is None else float(value)
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def _methods(content: Mapping[str, Any]) -> Mapping[str, Metrics]:
    """The rows of a study's table; it has settings besides, which are no row."""
    rows = {name: _numbers(values) for name, values in content.items()}
    return {name: values for name, values in rows.items() if "accuracy" in values}


def _mixing(content: Mapping[str, Any]) -> Mixing:
    return Mixing(bool(content["has_mixed"]), str(content["verdict"]), _numbers(content))


def _diagnostics(content: Mapping[str, Any]) -> tuple[Mixing, Mapping[str, Mixing], Mapping[str, int]]:
    of_component = {name: _mixing(of) for name, of in content["components"].items()}
    stopped = {name: int(step) for name, step in content["chains_stopped_at_step"].items()}
    return _mixing(content), of_component, stopped


def _components(content: Mapping[str, Any]) -> tuple[str, tuple[Component, ...]]:
    components = (
        Component(str(of["name"]), float(of["probability"]), float(of["standard_error"]), tuple(map(int, of["chains"])))
        for of in content["components"]
    )
    return str(content["method"]), tuple(components)


def _following(path: Path, num_classes: int) -> Following:
    by_name = {
        "ids": "ids",
        "components": "components",
        "weights": "weights",
        "responsibilities": "responsibilities",
        "interval": "responsibilities_interval",
        "by_class": "responsibilities_by_class",
        "interval_by_class": "responsibilities_by_class_interval",
    }
    fields = read_npz(path, required=tuple(by_name.values()))
    values = {name: fields[field] for name, field in by_name.items()}
    num_examples, num_components = len(values["ids"]), len(values["components"])
    shapes = {
        "weights": (num_examples, num_components),
        "responsibilities": (num_examples, num_components),
        "interval": (2, num_examples, num_components),
        "by_class": (num_classes, num_components),
        "interval_by_class": (2, num_classes, num_components),
    }
    for name, shape in shapes.items():
        if values[name].shape != shape:
            found, expected = f"an array of shape {values[name].shape}", f"{shape}"
            raise CorruptDataError(str(path), by_name[name], found, expected, storage.COPY_AGAIN)
    components = tuple(map(str, values.pop("components")))
    return Following(components=components, **values)

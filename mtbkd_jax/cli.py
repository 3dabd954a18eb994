"""The command line: ``mtbkd run``, ``teach``, ``fit``, ``predict``, ``evaluate``, ``report``, ``status`` and imports.

It adds nothing that the library cannot do.

What only a command needs (scikit-learn, matplotlib, the studies) is imported when the command runs.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mtbkd_jax.errors import InputError, MTBKDError
from mtbkd_jax.machine import use_machine
from mtbkd_jax.processes import Processes, join_processes, leave, processes_among

# Both before the imports below, some of whose libraries make an array.
use_machine()
try:
    join_processes(processes_among(sys.argv[1:]))
except InputError as error:
    print(f"mtbkd: {error}", file=sys.stderr)
    raise SystemExit(2) from None

from mtbkd_jax.adapters.endpoint import EndpointConfig  # noqa: E402
from mtbkd_jax.adapters.options import AnswerOptions, PromptOptions  # noqa: E402
from mtbkd_jax.configuration import DistillationConfig  # noqa: E402
from mtbkd_jax.runs import StudentConfig  # noqa: E402


@dataclass(frozen=True)
class Study:
    """Run a study that the package ships: ``digits``, the main job."""

    name: tyro.conf.Positional[Literal["digits"]]
    """Which study."""
    out: Path
    """Where the run is written: a directory that does not exist or is empty."""
    num_labels: int = 100
    """Examples of the student's pool that keep their label."""
    seed: int = 0
    """The result depends on it and on the other options alone."""
    resume: bool = False
    """Go on with the run in ``out`` if it was not finished, to the bit; where there is none, begin it."""
    checkpoint_seconds: float = 30.0
    """Least time from one checkpoint of the chains to the next."""
    tensorboard: bool = False
    """Write what ``log.jsonl`` of the run says as scalars for TensorBoard as well; needs the library tensorboardX."""

    def __call__(self) -> None:
        """Run the study."""
        from mtbkd_jax.jobs import run_digits

        run_digits(self)


@dataclass(frozen=True)
class Teach:
    """Ask a teacher about your inputs, and write its outputs as ``fit`` takes them."""

    adapter: Literal["python", "onnx", "sequence-classifier", "image-classifier", "language-model", "endpoint"]
    """What the teacher is: made by a Python file of yours (of scikit-learn, Flax, PyTorch or anything), an ONNX file,
    a directory of Hugging Face transformers, or a closed model behind an OpenAI-compatible HTTP interface."""
    model: str
    """``FILE.py:NAME`` of an adapter or of a function that makes one; the ONNX file; the directory; or what the server
    calls the model."""
    data: Path
    """An NPZ file with ``inputs [N, ...]``, numbers or texts, and perhaps ``ids`` and ``class_names``."""
    out: Path
    """Where the outputs are written: a directory that does not exist or is empty."""
    name: str = "teacher"
    """What the teacher is called."""
    kind: Literal["logits", "probabilities"] | None = None
    """What an ONNX model puts out, where it cannot be told."""
    prompt: PromptOptions = field(default_factory=PromptOptions)
    """How a language model or a closed model is asked."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """Where a closed model is, and how politely it is asked."""
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    """How a closed model answers."""
    device: str = "cpu"
    """What PyTorch calls the device that a directory of transformers is run on."""
    batch_size: int = 64
    """Inputs that the teacher is given at a time."""
    resume: bool = False
    """Go on with the directory in ``out`` if it was not finished; where there is none, begin it."""
    checkpoint_seconds: float = 30.0
    """How much of its work a kill may cost."""

    def __call__(self) -> None:
        """Ask the teacher."""
        from mtbkd_jax.adapters.job import run_teaching

        run_teaching(self)


@dataclass(frozen=True)
class Fit:
    """Distil a student on your own arrays."""

    data: Path
    """An NPZ file with ``inputs [N, ...]``, ``labels [N]`` (-1 for none), and perhaps ``ids``, ``class_names``."""
    teachers: tuple[str, ...]
    """Directories of teacher outputs, or ``name=FILE.npz`` and ``name=FILE.csv`` of logits or probabilities."""
    out: Path
    """Where the run is written: a directory that does not exist or is empty."""
    kind: Literal["logits", "probabilities"] | None = None
    """What the teachers' files hold, where it cannot be told."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The student's architecture."""
    standardize: bool = True
    """Whether inputs are standardised by the training statistics, which the run keeps for ``predict``."""
    weighting: Literal["default", "trust", "accuracy", "confidence", "entropy", "uniform", "fixed"] = "default"
    """How teachers are weighed: by trust that is learned, by how often they are right when they say a class, by how
    probable they find the label (only examples with one), by entropy, all alike, or as given. The default learns trust
    where there are labels enough, else it takes entropy."""
    weights: tuple[float, ...] = ()
    """The weights of ``fixed``, one for each teacher."""
    centers: tuple[str, ...] = ()
    """``name=PATH`` of a safetensors file or an Orbax checkpoint with parameters of this very student, which stand for
    those distilled from the teacher of this name."""
    distillation: Annotated[DistillationConfig, tyro.conf.arg(name="")] = field(default_factory=DistillationConfig)
    """How the student is distilled."""
    draws: Literal["float32", "bfloat16", "predictions", "moments"] = "float32"
    """What is kept of every draw: the parameters, exact or rounded to half the size, from which anything can be
    predicted; or what it predicts of the probes; or only running moments of that."""
    probes: Path | None = None
    """An NPZ file with ``inputs [N, ...]``, raw as those of the training: the only ones that can be predicted from
    ``predictions`` and ``moments``, which need them."""
    processes: Processes = field(default_factory=Processes)
    """Other processes that take a part of the chains and of the data, each started by this command with its own number;
    all of them see the same files."""
    seed: int = 0
    """The result depends on it and on the other options alone."""
    resume: bool = False
    """Go on with the run in ``out`` if it was not finished, to the bit; where there is none, begin it."""
    checkpoint_seconds: float = 30.0
    """Least time from one checkpoint of the chains to the next."""
    tensorboard: bool = False
    """Write what ``log.jsonl`` of the run says as scalars for TensorBoard as well; needs the library tensorboardX."""

    def __call__(self) -> None:
        """Run the distillation."""
        from mtbkd_jax.jobs import fit

        fit(self)


@dataclass(frozen=True)
class Predict:
    """Predict raw inputs: writes ``probs``, ``mean_deviance``, ``credible_upper`` and ``epistemic``."""

    run: tyro.conf.Positional[Path]
    """The run's directory; the run must have kept parameters."""
    inputs: Path
    """An NPZ file with ``inputs [N, ...]``, raw as those of the training; other fields are left alone."""
    output: Path
    """The NPZ file to write; it must not exist."""
    level: float = 0.95
    """Level of the credible interval."""

    def __call__(self) -> None:
        """Predict."""
        from mtbkd_jax.jobs import predict_file

        predict_file(self.run, self.inputs, self.output, level=self.level)


@dataclass(frozen=True)
class Evaluate:
    """Score a finished run on labelled data: every metric, as a table and as ``metrics.json``."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    data: Path
    """An NPZ file with ``inputs`` and ``labels``."""
    outside: Path | None = None
    """An NPZ file with ``inputs`` from another distribution, which uncertainty is to tell from those of ``data``."""
    out: Path | None = None
    """Where metrics and figures are written, a new directory; RUN/evaluations/NAME_OF_DATA by default."""

    def __call__(self) -> None:
        """Evaluate."""
        from mtbkd_jax.jobs import evaluate_file

        out = self.out or self.run / "evaluations" / self.data.stem
        evaluate_file(self.run, self.data, out, outside=self.outside)


@dataclass(frozen=True)
class Report:
    """Write a page about finished runs that any browser opens, with nothing from the network."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs' directories; several are put side by side."""
    out: Path
    """The HTML file to write."""
    data: Path | None = None
    """An NPZ file with ``inputs`` and ``labels`` that the runs have not seen, and perhaps ``ids`` and
    ``images [N, height, width]`` or ``texts [N]`` to be shown; the digits study has its own."""
    overwrite: bool = False
    """Replace the file if it exists."""

    def __call__(self) -> None:
        """Write it."""
        from mtbkd_jax.report.job import run_report

        run_report(self)


@dataclass(frozen=True)
class Status:
    """Say how far a run has come, while it is written or after it was interrupted."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    json: bool = False
    """Say it as one JSON object, for programs."""

    def __call__(self) -> None:
        """Print it."""
        from mtbkd_jax.status import print_status

        print_status(self.run, as_json=self.json)


@dataclass(frozen=True)
class ImportData:
    """Write columns of a table of examples as the NPZ file that the other commands take for ``--data``."""

    file: tyro.conf.Positional[Path]
    """A CSV, NPZ, Parquet or safetensors file, or a directory that ``Dataset.save_to_disk`` of Hugging Face made."""
    out: Path
    """The NPZ file to write; it must not exist."""
    inputs: tuple[str, ...]
    """Columns of numbers, by their names or by patterns like 'pixel_*', or one column of text."""
    label: str | None = None
    """The column of labels, whole numbers from 0 or names; where a cell is empty, or there is no such column, the
    examples have no label."""
    ids: str | None = None
    """The column of ids; by default that called ``id`` or ``ids``, or else the numbers of the rows from 0."""
    groups: str | None = None
    """The column that says which examples resemble each other."""
    class_names: tuple[str, ...] = ()
    """In the order of the labels; by default what the file says, or else the names among the labels in alphabetical
    order."""

    def __call__(self) -> None:
        """Import."""
        from mtbkd_jax.imports import import_data

        imported = import_data(
            self.file,
            self.out,
            inputs=self.inputs,
            label=self.label,
            ids=self.ids,
            groups=self.groups,
            class_names=self.class_names or None,
        )
        print(f"Wrote {imported.path}: {imported.num_examples} examples, {imported.num_labelled} with a label")
        if imported.class_names is not None:
            print(f"Classes from 0: {', '.join(imported.class_names)}")


@dataclass(frozen=True)
class ImportTeacher:
    """Write columns of a table as the outputs of one teacher, as ``fit`` takes them for ``--teachers``."""

    file: tyro.conf.Positional[Path]
    """A CSV, NPZ, Parquet or safetensors file, or a directory that ``Dataset.save_to_disk`` of Hugging Face made."""
    out: Path
    """Where the outputs are written: a directory that does not exist or is empty."""
    name: str
    """What the teacher is called."""
    outputs: tuple[str, ...] = ()
    """A column for each class, by names or by patterns like 'prob_*', or one column that holds lists or a matrix; by
    default all columns but that of the ids."""
    ids: str | None = None
    """The column of ids; by default that called ``id`` or ``ids``, or else the numbers of the rows from 0."""
    kind: Literal["logits", "probabilities"] | None = None
    """What the outputs are; logits by default, unless they look otherwise."""
    class_names: tuple[str, ...] = ()
    """In the order of the outputs; by default what the file says, or else the names of the columns."""
    softening: float | None = None
    """The temperature that the logits were divided by already, if any."""
    top_classes: str | None = None
    """The column of the classes ``[N, k]``, counted from 0, that the outputs are about, where the teacher gave its most
    probable ones alone: the outputs are then one column of log probabilities ``[N, k]``, and -1 is no class. What
    becomes of the others is said to ``fit``, by ``--tail``."""
    num_classes: int | None = None
    """How many classes there are, with ``top_classes`` and no names of the classes."""

    def __call__(self) -> None:
        """Import."""
        from mtbkd_jax.imports import import_teacher

        outputs = import_teacher(
            self.file,
            self.out,
            name=self.name,
            outputs=self.outputs,
            ids=self.ids,
            kind=self.kind,
            class_names=self.class_names or None,
            softening=self.softening,
            top_classes=self.top_classes,
            num_classes=self.num_classes,
        )
        print(f"Wrote {outputs.where}: {outputs.num_examples} examples, {outputs.num_classes} classes")


@dataclass(frozen=True)
class ImportDeepLoc:
    """Read a clone of the authors' repository (AnonymousSub1/MTBKD on GitHub) and write what ``fit`` takes."""

    directory: tyro.conf.Positional[Path]
    """The clone."""
    out: Path
    """Where ``train.npz`` and ``teachers/`` are written: a directory that does not exist or is empty."""

    def __call__(self) -> None:
        """Import."""
        from mtbkd_jax.deeploc import import_deeploc

        for path in import_deeploc(self.directory, self.out):
            print(f"Wrote {path}")


Command = (
    Annotated[Study, tyro.conf.subcommand("run")]
    | Annotated[Teach, tyro.conf.subcommand("teach")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[ImportData, tyro.conf.subcommand("import-data")]
    | Annotated[ImportTeacher, tyro.conf.subcommand("import-teacher")]
    | Annotated[ImportDeepLoc, tyro.conf.subcommand("import-deeploc")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a mistake in the input ends with one message and exit status 2, and no traceback."""
    command = tyro.cli(Command, args=arguments, prog="mtbkd", description=__doc__.partition("\n")[0])
    try:
        command()
    except MTBKDError as error:
        print(f"mtbkd: {error}", file=sys.stderr)
        leave(2 if isinstance(error, InputError) else 1)

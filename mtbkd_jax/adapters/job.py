"""The job behind ``mtbkd teach``: from options to an adapter, and from a file of inputs to a directory of outputs."""

import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from mtbkd_jax.adapters.base import Adapter
from mtbkd_jax.adapters.closed_models import from_endpoint
from mtbkd_jax.adapters.endpoint import Endpoint
from mtbkd_jax.adapters.label_words import read_language_model
from mtbkd_jax.adapters.onnx_models import read_onnx
from mtbkd_jax.adapters.python_files import read_python
from mtbkd_jax.adapters.teaching import read_questions, teach
from mtbkd_jax.adapters.transformers_models import read_image_classifier, read_sequence_classifier
from mtbkd_jax.errors import InputError
from mtbkd_jax.progress import rows_bar

if TYPE_CHECKING:
    from mtbkd_jax.cli import Teach

_EXTRAS = {
    "endpoint": "endpoint",
    "onnx": "onnx",
    "sequence-classifier": "transformers",
    "image-classifier": "transformers",
    "language-model": "transformers",
}


def run_teaching(config: "Teach") -> None:
    """Ask a teacher about all inputs of a file, and write its outputs."""
    console = Console()
    questions = read_questions(config.data)
    with ExitStack() as while_asking:
        adapter = _adapter(config, while_asking)
        if (cost := adapter.cost) is not None:
            while_asking.callback(lambda: console.print(cost(), soft_wrap=True))
        while_asking.enter_context(_stopped_by_sigterm())
        progress = while_asking.enter_context(rows_bar(len(questions.ids)))
        outputs = teach(
            config.out,
            {config.name: adapter},
            questions,
            batch_size=config.batch_size,
            resume=config.resume,
            seconds_between=config.checkpoint_seconds,
            progress=progress,
        )
    console.print(
        f"Wrote {outputs.where}: {outputs.num_examples} examples, {outputs.num_classes} classes", soft_wrap=True
    )


def _adapter(config: "Teach", while_asking: ExitStack) -> Adapter:
    """The adapter that the options stand for; what it has to be followed by goes onto the stack."""
    if config.kind is not None and config.adapter != "onnx":
        action = "Leave it out; a Python file says it itself."
        raise InputError("--kind", config.adapter, f"{config.kind!r}", "nothing, since its outputs are known", action)
    make: dict[str, Callable[[], Adapter]] = {
        "python": lambda: read_python(config.model),
        "onnx": lambda: read_onnx(config.model, kind=config.kind),
        "sequence-classifier": lambda: read_sequence_classifier(config.model, device=config.device),
        "image-classifier": lambda: read_image_classifier(config.model, device=config.device),
        "language-model": lambda: read_language_model(
            config.model, config.prompt.prompt(), normalisation=config.prompt.normalisation, device=config.device
        ),
        "endpoint": lambda: from_endpoint(
            while_asking.enter_context(Endpoint(config.endpoint)),
            config.model,
            config.prompt.prompt(),
            **dataclasses.asdict(config.answers),
        ),
    }
    try:
        return make[config.adapter]()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(config.adapter)
        action = "Install what the file imports." if extra is None else f"Run: pip install 'mtbkd-jax[{extra}]'."
        raise InputError("--adapter", config.adapter, f"no module {error.name}", "its library", action) from error


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """End by a SIGTERM, as batch systems send it before they kill, with the rows so far on the disk."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)

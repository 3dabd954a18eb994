"""Draws of a simulation with fewer inputs, for studies made small."""

import dataclasses

from experiments.simulation1.design import DESIGN
from experiments.simulations import Simulation, simulation_draws


def small_draw(num_inputs: int) -> Simulation:
    """Simulation 1 with 300 labels and this many inputs; labelled ones first, so that all of them are kept."""
    (draw,) = simulation_draws(DESIGN, [5])
    draw = draw.with_labels(300)
    kept = (draw.labels < 0).argsort(kind="stable")[:num_inputs]
    return dataclasses.replace(
        draw, inputs=draw.inputs[kept], labels=draw.labels[kept], teacher_logits=draw.teacher_logits[kept]
    )

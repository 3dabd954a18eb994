"""What a student is told of a protein: the mean hidden state of a small language model, and composition features.

The UniRep language models (Alley et al., Nature Methods 16, 2019) have 64 and 256 units, 0.15 and 2.3 million
parameters. What composition is, ``mtbkd_jax.composition`` says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtbkd_jax.composition import composition_features


class Features(NamedTuple):
    """A set of features.

    Attributes:
      title: in tables.
      model: array of the data with its hidden states, ``[proteins, 2 * num_units]``: the mean over residues, then the
        last one.
      num_units: of the model.
      has_composition: whether composition features stand beside the mean hidden state.
    """

    title: str
    model: str
    num_units: int
    has_composition: bool = False


FEATURES = {
    "unirep256": Features("UniRep-256", "unirep256", 256),
    "unirep256_composition": Features("UniRep-256 and composition", "unirep256", 256, has_composition=True),
    "unirep64": Features("UniRep-64", "unirep64", 64),
}
DEFAULT_FEATURES = "unirep256"


def student_inputs(features: Features, hidden_states: np.ndarray, sequences: Sequence[str]) -> np.ndarray:
    """The features of proteins, float32, ``[proteins, features]``, not standardised.

    Args:
      features: which.
      hidden_states: of ``features.model``, ``[proteins, 2 * num_units]``.
      sequences: residues of each protein.

    Raises:
      InputError: if a sequence has a letter that stands for no residue, and composition is asked for.
    """
    mean_state = hidden_states[:, : features.num_units].astype(np.float32)
    return np.hstack([mean_state, composition_features(sequences)]) if features.has_composition else mean_state

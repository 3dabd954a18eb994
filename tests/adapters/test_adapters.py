"""What holds for every adapter: its outputs are its framework's own, by id, however they were asked for."""

import numpy as np
import pytest
from scipy.special import log_softmax

from mtbkd_jax.adapters import make_questions, teach
from mtbkd_jax.teachers import open_teacher_outputs
from tests.adapters.table import CASES, NUM_EXAMPLES

IDS = np.array([f"row {row} ü" for row in np.random.default_rng(3).permutation(NUM_EXAMPLES)])


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]()


def check(outputs, case):
    np.testing.assert_array_equal(outputs.ids, IDS)
    outputs.verify()
    order = np.random.default_rng(4).permutation(NUM_EXAMPLES)
    found = log_softmax(outputs.logits(IDS[order])[:, 0].astype(np.float64), axis=1)
    np.testing.assert_allclose(found, case.log_probs[order], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_outputs_are_those_of_the_framework(tmp_path, case, batch_size):
    questions = make_questions(case.inputs, ids=IDS)
    check(teach(tmp_path / "out", {"teacher": case.adapter}, questions, batch_size=batch_size), case)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_interrupted_directory_is_gone_on_with_where_it_was(tmp_path, case, batch_size):
    questions = make_questions(case.inputs, ids=IDS)
    asked = []

    def interrupted(inputs):
        if len(asked) >= 2 * batch_size:
            raise KeyboardInterrupt
        asked.extend(inputs)
        return case.adapter.predict(inputs)

    adapters = {"teacher": case.adapter._replace(predict=interrupted)}
    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "out", adapters, questions, batch_size=batch_size)

    def resumed(inputs):
        asked.extend(inputs)
        return case.adapter.predict(inputs)

    adapters = {"teacher": case.adapter._replace(predict=resumed)}
    teach(tmp_path / "out", adapters, questions, batch_size=batch_size, resume=True)
    check(open_teacher_outputs(tmp_path / "out"), case)
    np.testing.assert_array_equal(np.array(asked), case.inputs)  # each once, and in order

"""Composition features: what is counted, where, and what is refused."""

import numpy as np
import pytest

from mtbkd_jax.composition import (
    AMINO_ACIDS,
    FIRST_WINDOWS,
    LAST_WINDOWS,
    OTHER_RESIDUES,
    composition_features,
    composition_names,
)
from mtbkd_jax.errors import InputError

WINDOWS = ["", *(f", first {size}" for size in FIRST_WINDOWS), *(f", last {size}" for size in LAST_WINDOWS)]


def features_of(sequence):
    return dict(zip(composition_names(), composition_features([sequence])[0].tolist(), strict=True))


def random_sequence(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def test_every_feature_has_a_name_of_its_own():
    assert len(set(composition_names())) == composition_features(["MK"]).shape[1] == 200
    assert composition_features([]).shape == (0, 200)


@pytest.mark.parametrize("length", [1, 5, 39, 300])
@pytest.mark.parametrize("window", WINDOWS)
def test_shares_are_those_of_the_window_and_sum_to_one(length, window):
    sequence = random_sequence(length)
    side, _, size = window.removeprefix(", ").partition(" ")
    part = {"": sequence, "first": sequence[: int(size or 0)], "last": sequence[-int(size or 0) :]}[side]
    features = features_of(sequence)
    shares = [features[f"share of {letter}{window}"] for letter in AMINO_ACIDS]
    np.testing.assert_allclose(shares, [part.count(letter) / len(part) for letter in AMINO_ACIDS], rtol=1e-6)
    np.testing.assert_allclose(sum(shares), 1.0, rtol=1e-6)


def test_charge_and_hydropathy_are_means_over_residues():
    features = features_of("KKDA")
    assert features["charge"] == 0.25
    # Kyte and Doolittle: K -3.9, D -3.5, A 1.8.
    assert features["hydropathy"] == pytest.approx((2 * -3.9 - 3.5 + 1.8) / 4)


@pytest.mark.parametrize(
    ("extreme", "letters"), [(4.5, "I"), (4.2, "V"), (3.8, "L"), (-4.5, "R"), (-3.9, "K"), (-3.5, "DENQ"), (-3.2, "H")]
)
def test_the_ends_of_the_hydropathy_scale_are_those_that_are_published(extreme, letters):
    for letter in letters:
        assert features_of(letter)["hydropathy"] == pytest.approx(extreme)


def test_the_order_of_residues_matters_to_the_ends_alone():
    sequence = random_sequence(200)
    turned = features_of(sequence[::-1])
    for name, value in features_of(sequence).items():
        if "first" not in name and "last" not in name:
            assert turned[name] == pytest.approx(value, abs=1e-5)
    assert turned["share of A, first 20"] == features_of(sequence)["share of A, last 20"]


def test_a_membrane_span_is_found_wherever_it_is():
    for before in (0, 37, 81):
        features = features_of("D" * before + "L" * 19 + "D" * (81 - before))
        assert features["largest hydropathy of 19"] == pytest.approx(3.8)
    assert features_of("LD")["largest hydropathy of 19"] == pytest.approx((3.8 - 3.5) / 2)


def test_length_is_a_natural_logarithm():
    assert features_of("M" * 148)["log length"] == pytest.approx(np.log(148))


def test_other_residues_keep_their_place_and_count_for_nothing():
    features = features_of("MX" + "A" * 38)
    assert features["share of M, first 10"] == pytest.approx(1 / 9)
    assert features["log length"] == pytest.approx(np.log(40))
    assert set(features_of(OTHER_RESIDUES).values()) == {0.0, features_of("A" * 6)["log length"]}


@pytest.mark.parametrize(
    ("sequence", "found"),
    [
        ("", "no residue"),
        ("MKa", "the letter 'a' at place 3 of 3"),
        ("MK*", r"the letter '\*'"),
        ("M K", "the letter ' '"),
        ("M-K", "the letter '-'"),
        ("ΜK", "the letter 'Μ' at place 1"),  # a Greek capital mu
        ("M\ud800", "the letter"),
    ],
)
def test_what_stands_for_no_residue_is_refused(sequence, found):
    with pytest.raises(InputError, match=rf"clone\.csv: sequence 1: found {found}"):
        composition_features(["MK", sequence], where="clone.csv")

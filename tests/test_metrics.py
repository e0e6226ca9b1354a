# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from longclock import metrics


def direct_uauc(user, label, score):
    """Impression-weighted mean of pairwise AUCs, pair by pair."""
    total, weight = 0.0, 0
    for u in set(user):
        rows = [i for i in range(len(user)) if user[i] == u]
        positive = [score[i] for i in rows if label[i] == 1]
        negative = [score[i] for i in rows if label[i] == 0]
        if positive and negative:
            pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
            total += len(rows) * sum(pairs) / len(pairs)
            weight += len(rows)
    return total / weight if weight else float("nan")


impressions = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.sampled_from([-1.5, 0.0, 0.1, 0.2, 7.0])),
    max_size=40,
)


@given(impressions)
def test_uauc_is_its_direct_definition(rows):
    user, label, score = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else ([],) * 3
    )
    expected = direct_uauc(user, label, score)
    np.testing.assert_allclose(metrics.uauc(user, label, score), expected, rtol=1e-12)


def test_uauc_weighs_users_by_impressions():
    user = np.array([5, 5, 9, 9, 9, 9, 1])
    label = np.array([1, 0, 1, 0, 0, 0, 1])  # user 1 has one class: skipped
    score = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0])
    assert metrics.uauc(user, label, score) == pytest.approx(2 / 6)


def test_uauc_does_not_lose_close_scores():
    score = np.float32([1e8, np.nextafter(np.float32(1e8), np.float32(2e8)), -1e-30, 1e-30])
    user = np.array([0, 0, 10**6, 10**6])
    assert metrics.uauc(user, np.array([0, 1, 0, 1]), score) == 1.0


def test_auc_is_scikit_learns_and_nan_for_one_class():
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 500), rng.random(500)
    assert metrics.auc(label, score) == roc_auc_score(label, score)
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3)))
    assert np.isnan(metrics.auc(np.array([]), np.array([])))


def test_log_loss():
    assert metrics.logloss(np.array([1, 0]), np.array([0.5, 0.75])) == pytest.approx(
        (np.log(2) + np.log(4)) / 2
    )
    assert np.isnan(metrics.logloss(np.array([]), np.array([])))


def test_log_loss_is_scikit_learns():
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 1000)
    probability = np.concatenate([[0, 1, 0, 1, 1e-300, 1 - 1e-16], draw.random(994)])
    expected = log_loss(label, probability, labels=[0, 1])
    assert metrics.logloss(label, probability) == pytest.approx(expected, rel=1e-14)


def test_uauc_of_500k_scores_is_quick():
    rng = np.random.default_rng(0)
    user, label = rng.integers(0, 1000, 500_000), rng.integers(0, 2, 500_000)
    score = rng.normal(size=500_000).astype(np.float32)
    started = time.perf_counter()
    value = metrics.uauc(user, label, score)
    assert time.perf_counter() - started < 5  # about 0.2 s; ample for a busy machine
    mine = user == 17
    assert 0.49 < value < 0.51
    assert metrics.uauc(user[mine], label[mine], score[mine]) == pytest.approx(
        roc_auc_score(label[mine], score[mine])
    )


LABEL, SCORE, USER = [0, 1, 1, 0], [0.1, 0.9, 0.3, 0.4], [7, 7, 8, 8]
MEASURES = {
    "auc": lambda label, score, user=USER: metrics.auc(label, score),
    "uauc": lambda label, score, user=USER: metrics.uauc(user, label, score),
    "logloss": lambda label, score, user=USER: metrics.logloss(label, score),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("row", range(4))
def test_a_nan_makes_every_measure_nan(measure, row):
    score = np.array(SCORE)
    score[row] = np.nan
    for dtype in (np.float16, np.float32, np.float64):
        assert np.isnan(MEASURES[measure](LABEL, score.astype(dtype)))
    # Nor does it hide in a user with one class, or of one row.
    assert np.isnan(MEASURES[measure](LABEL, score, [1, 2, 3, 4]))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1, 2, 0], SCORE, "label must be 0 or 1, got 2 in row 2"),
        ([-1, 1, 1, 0], SCORE, "label must be 0 or 1, got -1 in row 0"),
        ([0, 1, np.nan, 0], SCORE, "label must be 0 or 1, got nan in row 2"),
        ([0, 1, 0.5, 0], SCORE, "label must be 0 or 1, got 0.5"),
        (["0", "1", "1", "0"], SCORE, "label must be numbers of shape"),
        ([0, 1, None, 0], SCORE, "label must be numbers of shape .*got object"),
        (LABEL, SCORE[:3], r"must have the same shape \[R\], got \[4\], \[3\]"),
        (LABEL, [SCORE], r"must be numbers of shape \[R\], got float64 of shape \[1, 4\]"),
        (LABEL, [0.1, [0.2, 0.3]], "must be an array of numbers"),
        (LABEL, torch.tensor(SCORE, requires_grad=True), "must be an array of numbers"),
        ([], SCORE, r"must have the same shape \[R\], got \[0\], \[4\]"),
        (1, SCORE, r"label must be numbers of shape \[R\]"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(measure, label, score, message):
    with pytest.raises(ValueError, match=f"^{measure}: .*{message}"):
        MEASURES[measure](label, score)


def test_users_of_another_length():
    with pytest.raises(ValueError, match=r"^uauc: label, score, user must have the same shape"):
        metrics.uauc(USER[:3], LABEL, SCORE)


@pytest.mark.parametrize("measure", ["auc", "uauc"])
def test_infinite_scores_have_their_place(measure):
    finite = [-9.0, 9.0, 0.5, -9.0]
    infinite = [-np.inf, np.inf, 0.5, -np.inf]
    assert MEASURES[measure](LABEL, infinite) == MEASURES[measure](LABEL, finite) == 1.0
    assert MEASURES[measure](LABEL, [np.inf, np.inf, 1, 1]) == MEASURES[measure](
        LABEL, [2, 2, 1, 1]
    )


@pytest.mark.parametrize("probability", [-0.1, 1.5, np.inf, -np.inf])
def test_probabilities_are_from_0_to_1(probability):
    with pytest.raises(ValueError, match=r"^logloss: probability must be from 0 to 1, got .*logit"):
        metrics.logloss([0, 1], [0.5, probability])


def test_labels_of_any_kind():
    for kind in (bool, np.int8, np.float32, list):
        label = LABEL if kind is list else np.array(LABEL, kind)
        for measure in MEASURES.values():
            assert measure(label, SCORE) == measure(np.array(LABEL), np.array(SCORE))


def test_recall_of_attention():
    mass = np.array(
        [[0.5, 0.3, 0.2, 0.0], [0.1, 0.0, 0.9, 0.0], [0.0, 0.0, 0.0, 0.0], [2, 2, 4, 0]]
    )
    found = np.array([[0, 2, -1], [2, 0, 1], [-1, -1, -1], [3, -1, 2]])
    recall = metrics.recall_of_attention
    assert recall(mass, found) == pytest.approx((0.7 + 1.0 + 0.5) / 3)
    assert recall(mass, found, k=1) == pytest.approx((0.5 + 0.9 + 0.0) / 3)
    assert recall(mass, found, k=9) == recall(mass, found)
    assert recall(mass, found, k=0) == recall(mass, found[:, :0]) == 0
    assert recall(mass[:2].tolist(), found[:2].tolist()) == pytest.approx(0.85)
    assert np.isnan(recall(mass[2:3], found[2:3]))
    assert np.isnan(recall(np.zeros((0, 3)), np.zeros((0, 2), int)))
    assert np.isnan(recall(np.array([[np.nan, 1]]), np.array([[1]])))


@pytest.mark.parametrize(
    ("mass", "found", "k", "message"),
    [
        ([0.5], [[0]], None, r"mass must be numbers of shape \[Q, M\], got float64 of shape \[1\]"),
        ([[0.5]], [[0.0]], None, r"found must be integers of shape \[Q, K\], got float64"),
        ([[0.5]], [[0], [0]], None, "mass and found must have a row a query, got 1 and 2 rows"),
        ([[0.5]], [[1]], None, "found must be from -1 to M - 1 = 0, got 1"),
        ([[0.5]], [[-2]], None, "found must be from -1 to M - 1 = 0, got -2"),
        ([[-0.5]], [[0]], None, "mass must not be negative, got -0.5"),
        ([[0.5]], [[0]], -1, "k must be an int of at least 0, got -1"),
        ([[0.5]], [[0]], True, "k must be an int of at least 0, got True"),
    ],
)  # fmt: skip
def test_recall_of_attention_names_what_is_wrong(mass, found, k, message):
    with pytest.raises(ValueError, match=f"^recall_of_attention: {message}"):
        metrics.recall_of_attention(np.array(mass), np.array(found), k)

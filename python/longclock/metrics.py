# SPDX-License-Identifier: Apache-2.0
"""Metrics of a scored stream: AUC, UAUC and log loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score

Array = npt.NDArray[np.generic]


def auc(label: Array, score: Array) -> float:
    """Area under the ROC curve; NaN where only one class is present."""
    label = np.asarray(label)
    if len(label) == 0 or label.min() == label.max():
        return float("nan")
    return float(roc_auc_score(label, score))


def uauc(user: Array, label: Array, score: Array) -> float:
    """Mean over users of each user's own AUC, weighted by the user's impressions.

    ``sum_u n_u AUC_u / sum_u n_u`` over the users who have both classes; the others are skipped; NaN
    where none is left. ``AUC_u`` is the share of (positive, negative) pairs of the user that are in
    order, ties counting half. One sort for all users: O(R log R).

    Args:
        user, label, score: ``[R]``; ``label`` 0 or 1.
    """
    _, user = np.unique(user, return_inverse=True)
    positive = np.asarray(label) != 0
    if len(user) == 0:
        return float("nan")
    # Ranks within users from one ranking of all rows: the place of the score among all scores, made
    # distinct from other users' by the user's number. Integers, so exact; ties get the mean rank.
    _, place = np.unique(score, return_inverse=True)
    rank = rankdata(user.astype(np.int64) * (int(place.max()) + 1) + place)
    rows = np.bincount(user)
    rank -= (np.cumsum(rows) - rows)[user]
    positives = np.bincount(user, weights=positive)
    rank_sum = np.bincount(user, weights=rank * positive)
    pairs = positives * (rows - positives)
    both = pairs > 0
    if not both.any():
        return float("nan")
    per_user = (rank_sum - positives * (positives + 1) / 2)[both] / pairs[both]
    return float(np.average(per_user, weights=rows[both]))


def logloss(label: Array, probability: Array) -> float:
    """Mean binary cross-entropy of predicted probabilities; NaN for no rows."""
    if len(label) == 0:
        return float("nan")
    return float(log_loss(label, np.asarray(probability, np.float64), labels=[0, 1]))

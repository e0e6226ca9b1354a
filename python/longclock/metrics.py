# SPDX-License-Identifier: Apache-2.0
"""Metrics of a scored stream, AUC, UAUC and log loss, and of a search: the share of the attention that it finds.

A NaN among the scores or probabilities, of which no order and no loss can be told, makes each of them
NaN; a label is 0 or 1 everywhere. The classes may be booleans, integers or floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from longclock._extras import TRAIN_EXTRA, imported_for
from longclock._keywords import named_keywords
from longclock._mlp import is_found, remedy

with imported_for("longclock.metrics", TRAIN_EXTRA):
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

__all__ = ["auc", "logloss", "recall_of_attention", "uauc"]

Array = npt.NDArray[np.generic]


@named_keywords("auc")
def auc(label: Array, score: Array) -> float:
    """Area under the ROC curve; NaN where only one class is present, or a score is NaN.

    Args:
        label, score: ``[R]``; ``label`` 0 or 1; a score may be infinite.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import numpy as np
        >>> from longclock.metrics import auc
        >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))  # 3 of 4 pairs in order
        0.75
    """
    label, score = _labels("auc", label), _column("auc", "score", score)
    _same_rows("auc", label=label, score=score)
    if len(label) == 0 or label.min() == label.max() or np.isnan(score).any():
        return float("nan")
    if not np.isfinite(score).all():  # their places have the same order, and are finite
        score = np.unique(score, return_inverse=True)[1]
    return float(roc_auc_score(label, score))


@named_keywords("uauc")
def uauc(user: Array, label: Array, score: Array) -> float:
    """Mean over users of each user's own AUC, weighted by the user's impressions.

    ``sum_u n_u AUC_u / sum_u n_u`` over the users who have both classes; the others are skipped; NaN
    where none is left, or any score is NaN. ``AUC_u`` is the share of (positive, negative) pairs of the user that are in
    order, ties counting half. One sort for all users: O(R log R).

    Args:
        user, label, score: ``[R]``; ``user`` any ids, ``label`` 0 or 1; a score may be infinite.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import numpy as np
        >>> from longclock.metrics import uauc
        >>> user, label = np.array([1, 1, 2, 2, 2, 3]), np.array([1, 0, 1, 0, 0, 1])
        >>> score = np.array([0.9, 0.1, 0.2, 0.3, 0.1, 0.5])
        >>> round(uauc(user, label, score), 6)  # (2 * 1 + 3 * 0.5) / 5: user 3 has no 0
        0.7
    """
    positive, score = _labels("uauc", label), _column("uauc", "score", score)
    user = np.asarray(user)
    _same_rows("uauc", label=positive, score=score, user=user)
    _, user = np.unique(user, return_inverse=True)
    if len(user) == 0 or np.isnan(score).any():
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


@named_keywords("logloss")
def logloss(label: Array, probability: Array) -> float:
    """Mean binary cross-entropy of predicted probabilities; NaN for no rows, or where one is NaN.

    No probability counts for less than 2^-52, so that one that is 0 or 1 and wrong costs 36 and not infinity, as in scikit-learn.

    Args:
        label, probability: ``[R]``; ``label`` 0 or 1; ``probability`` from 0 to 1, of label 1.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import numpy as np
        >>> from longclock.metrics import logloss
        >>> round(logloss(np.array([1, 0]), np.array([0.5, 0.5])), 3)  # of a coin: log 2
        0.693
    """
    label = _labels("logloss", label)
    given: npt.NDArray[np.float64] = _column("logloss", "probability", probability).astype(
        np.float64
    )
    _same_rows("logloss", label=label, probability=given)
    outside = (given < 0) | (given > 1)
    if outside.any():
        raise ValueError(
            f"logloss: probability must be from 0 to 1, got {given[outside][0]}; "
            "a logit x becomes one by 1 / (1 + exp(-x))"
        )
    if len(label) == 0 or np.isnan(given).any():
        return float("nan")
    of_label = np.where(label, given, 1 - given)
    return float(-np.log(np.maximum(of_label, np.finfo(np.float64).eps)).mean())


@named_keywords("recall_of_attention")
def recall_of_attention(mass: Array, found: Array, k: int | None = None) -> float:
    """Share of the attention's mass that falls on what the search found: ``sum_{m found} p_m / sum_m p_m``, mean over queries.

    Queries without any mass, whose histories are empty, are left out; NaN where none is left, or where a mass is NaN.

    Args:
        mass: ``[Q, M]``, of each behaviour, not negative, as of :meth:`longclock.LongTermInterestClock.attention_mass`.
        found: integers ``[Q, K]``, indices of behaviours, best first, each once, -1 for nothing, as of
            :meth:`longclock.LongTermInterestClock.search`.
        k: only the first ``k`` of them count; None: all K.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import numpy as np
        >>> from longclock.metrics import recall_of_attention
        >>> mass = np.array([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]])
        >>> recall_of_attention(mass, np.array([[0, 2], [2, -1]]))  # 0.7 and 0.9
        0.8
    """
    share, index = _matrix("mass", mass, "biuf").astype(np.float64), _matrix("found", found, "iu")
    if len(share) != len(index):
        raise ValueError(
            f"recall_of_attention: mass and found must have a row a query, got {len(share)} and {len(index)} rows"
        )
    if k is not None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise ValueError(f"recall_of_attention: k must be an int of at least 0, got {k!r}")
        index = index[:, :k]
    if (share < 0).any():
        raise ValueError(f"recall_of_attention: mass must not be negative, got {share.min():g}")
    outside = (index < -1) | (index >= share.shape[1])
    if outside.any():
        raise ValueError(
            f"recall_of_attention: found must be from -1 to M - 1 = {share.shape[1] - 1}, got {index[outside][0]}"
        )
    total = share.sum(1)
    padded = np.append(share, np.zeros((len(share), 1)), 1)  # nothing, index -1, has no mass
    taken = np.take_along_axis(padded, index, 1).sum(1)
    some = total != 0
    return float((taken[some] / total[some]).mean()) if some.any() else float("nan")


def _matrix(name: str, values: Any, kinds: str) -> Any:
    """An array of two dimensions."""
    if is_found(values):
        raise ValueError(
            f"recall_of_attention: {name} must be an array, got {type(values).__name__}{remedy(values, name)}"
        )
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.dtype.kind not in kinds:
        raise ValueError(
            f"recall_of_attention: {name} must be {'integers' if kinds == 'iu' else 'numbers'} of shape "
            f"{'[Q, K]' if kinds == 'iu' else '[Q, M]'}, got {matrix.dtype} of shape {list(matrix.shape)}"
        )
    return matrix


def _column(measure: str, name: str, values: Any) -> Any:
    """An array ``[R]`` of real numbers."""
    try:
        column = np.asarray(values)
    except Exception as error:  # a tensor on a GPU or with a gradient, lists of other lengths
        raise ValueError(f"{measure}: {name} must be an array of numbers: {error}") from error
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise ValueError(
            f"{measure}: {name} must be numbers of shape [R], got {column.dtype} of shape "
            f"{list(column.shape)}"
        )
    return column


def _labels(measure: str, label: Any) -> Any:
    """Whether each label is 1."""
    column = _column(measure, "label", label)
    wrong = (column != 0) & (column != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{measure}: label must be 0 or 1, got {column[row]} in row {row}")
    return column != 0


def _same_rows(measure: str, **columns: Any) -> None:
    shapes = {name: list(column.shape) for name, column in columns.items()}
    if any(shape != shapes["label"] for shape in shapes.values()):
        raise ValueError(
            f"{measure}: {', '.join(shapes)} must have the same shape [R], "
            f"got {', '.join(map(str, shapes.values()))}"
        )

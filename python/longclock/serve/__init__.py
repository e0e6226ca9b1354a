# SPDX-License-Identifier: Apache-2.0
"""Answers requests with a model that was trained and exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longclock._extras import SERVE_EXTRA
from longclock._lazy import lazily

if TYPE_CHECKING:
    from longclock.serve.model_folder import ModelFolderError
    from longclock.serve.recommender import Ranking, Recommender, Request

__all__ = ["ModelFolderError", "Ranking", "Recommender", "Request"]

_recommender = "longclock.serve.recommender"
_homes = dict.fromkeys(("Ranking", "Recommender", "Request"), _recommender)
__getattr__ = lazily(__name__, {"ModelFolderError": "longclock.serve.model_folder", **_homes}, SERVE_EXTRA)  # fmt: skip

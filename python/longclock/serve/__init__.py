# SPDX-License-Identifier: Apache-2.0
"""Answers requests with a model that was trained and exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longclock._extras import SERVE_EXTRA
from longclock._lazy import lazily

if TYPE_CHECKING:
    from longclock.serve.asked import Request
    from longclock.serve.model_folder import ModelFolderError
    from longclock.serve.recommender import Ranking, Recommender

__all__ = ["ModelFolderError", "Ranking", "Recommender", "Request"]

__getattr__ = lazily(
    __name__,
    {
        "ModelFolderError": "longclock.serve.model_folder",
        "Ranking": "longclock.serve.recommender",
        "Recommender": "longclock.serve.recommender",
        "Request": "longclock.serve.asked",
    },
    SERVE_EXTRA,
)

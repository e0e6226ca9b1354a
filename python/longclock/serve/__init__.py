# SPDX-License-Identifier: Apache-2.0
"""Answers requests with a model that was trained and exported."""

from __future__ import annotations

from longclock.serve.asked import Request
from longclock.serve.model_folder import ModelFolderError
from longclock.serve.recommender import Ranking, Recommender

__all__ = ["ModelFolderError", "Ranking", "Recommender", "Request"]

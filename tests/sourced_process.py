# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.train`` with small excerpts, so that a small source has many."""

from __future__ import annotations

import argparse
import sys

from longclock.train import cli
from longclock.train.memory import Bounds


def bounds_of(args: argparse.Namespace) -> Bounds:
    return Bounds(events=16)


cli.bounds_of = bounds_of
sys.exit(cli.main())

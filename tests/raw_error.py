# SPDX-License-Identifier: Apache-2.0
"""What a raw op raises for a wrong argument. Of what C++ throws, PyTorch makes a RuntimeError from 2.15 on, whatever it is."""

from __future__ import annotations

import torch

RAW_ERROR = ValueError if torch.__version__ < "2.15" else RuntimeError

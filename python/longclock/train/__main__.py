# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.train``."""

import sys

from longclock.train.cli import main

if __name__ == "__main__":
    sys.exit(main())

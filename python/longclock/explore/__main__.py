# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.explore``."""

import sys

from longclock.explore.cli import main

if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.study``."""

import sys

from longclock.study.cli import main

if __name__ == "__main__":
    sys.exit(main())

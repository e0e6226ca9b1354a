# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.serve``."""

import sys

from longclock.serve.cli import main

if __name__ == "__main__":
    sys.exit(main())

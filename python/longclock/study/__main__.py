# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.study``."""

import sys

try:
    from longclock.study.cli import main
except ImportError as error:
    if (error.name or "").startswith("longclock"):
        raise
    sys.exit(f"longclock.study needs {error.name}: pip install 'longclock[train]'")

if __name__ == "__main__":
    sys.exit(main())

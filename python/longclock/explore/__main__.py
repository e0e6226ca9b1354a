# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.explore``."""

import sys

from longclock._extras import SERVE_EXTRA

try:
    from longclock.explore.cli import main
except ImportError as error:
    if (error.name or "").startswith("longclock"):
        raise
    sys.exit(f"longclock.explore needs {error.name}: {SERVE_EXTRA}")

if __name__ == "__main__":
    sys.exit(main())

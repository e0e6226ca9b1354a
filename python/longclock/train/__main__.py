# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.train``."""

import sys

from longclock._extras import TRAIN_EXTRA

try:
    from longclock.train.cli import main
except ImportError as error:
    if (error.name or "").startswith("longclock"):
        raise
    sys.exit(f"longclock.train needs {error.name}: {TRAIN_EXTRA}")
except KeyboardInterrupt:  # before there is anything to go on with
    print("\nlongclock.train: interrupted", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What a page shows unless it is told otherwise."""

USERS = 8  # to choose from
CANDIDATES = 12  # that are ranked

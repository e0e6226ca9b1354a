# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ``python -m bench``. One file per op gives the cases, ``harness`` measures them."""

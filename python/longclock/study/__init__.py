# SPDX-License-Identifier: Apache-2.0
"""The comparison of all models on a stream, over seeds and protocols: ``python -m longclock.study``.

Read in this order: ``plan`` (which runs, and what is already there), ``run`` (one run and what is measured of it),
``summary`` (means over seeds), ``report`` (tables and figures).
"""

# SPDX-License-Identifier: Apache-2.0
"""Streaming training of the Long-term Interest Clock and its rivals: ``python -m longclock.train``.

Read in this order: ``config`` (what can be set), ``batches`` (events to tensors), ``ranker`` (the model
around an interest module), ``loop`` (score, then learn), ``clock_step`` (what the clock learns, written out), ``checkpoint``, ``results``, ``report``. Of a run over a source: ``memory`` (what is kept),
``excerpt``, ``tables`` (which grow), ``running`` (figures), ``sourced``.
"""

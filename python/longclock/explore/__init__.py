# SPDX-License-Identifier: Apache-2.0
"""A page on which one drags the hour and sees search, attention and ranking move: ``python -m longclock.explore``.

Read in this order: ``names`` (of items and groups), ``view`` (one version of a model, and histories, as plain numbers), ``explorer``
(which follows the versions), ``page`` (these numbers and the files beside it as one page), ``app`` (a server that is asked for any
user), ``command``, ``cli``.
"""

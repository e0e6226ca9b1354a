# SPDX-License-Identifier: Apache-2.0
"""A fuzz of the ops' contract: generated calls, right or refused by name, against an oracle of its own.

``python -m tests.fuzz --calls 2000 --seed 1`` from the root of the repository. A call is a pure
function of (seed, index): ``--seed 1 --only 37`` shows and repeats it.

What it knows of an op lies in ops/<op>.py: a Spec (spec.py) that draws valid calls (draw.py), says what
must be refused (rules.py) and what is right (oracle.py, compare.py). Ops share clocks.py, layouts.py,
searches.py and selections.py. mutate.py: what is done to valid calls. run.py: the call, and what came of it.
pool.py: child processes that may die or hang, and the table.
"""

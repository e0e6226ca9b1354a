# SPDX-License-Identifier: Apache-2.0
"""A fuzz of the ops' contract: generated calls, right or refused by name, against an oracle of its own.

``python -m tests.fuzz --calls 2000 --seed 1`` from the root of the repository. A call is a pure
function of (seed, index): ``--seed 1 --only 37`` shows and repeats it.

generate.py: valid calls of every op and layout. mutate.py: what is done to them. contract.py: whether
the result must be right or the call refused. oracle.py: what is right. run.py: the call, and what came
of it. __main__.py: child processes that may die or hang, and the table.
"""

# SPDX-License-Identifier: Apache-2.0
"""Event streams, their histories and their candidates: what training and evaluation read."""

from longclock.data.builtin import bikeshare14, bikeshare14_home, load, music, nyc, nycflights
from longclock.data.candidates import Candidates, labelled_candidates, sampled_candidates
from longclock.data.catalogue import Catalogue
from longclock.data.event_file import read_events
from longclock.data.file_columns import EventFileError
from longclock.data.histories import Histories
from longclock.data.hourly_interests import HourlyInterests
from longclock.data.outcomes import OutcomeCounts, past_outcomes
from longclock.data.stream import EventStream

__all__ = [
    "Candidates",
    "Catalogue",
    "EventFileError",
    "EventStream",
    "Histories",
    "HourlyInterests",
    "OutcomeCounts",
    "bikeshare14",
    "bikeshare14_home",
    "labelled_candidates",
    "load",
    "music",
    "nyc",
    "nycflights",
    "past_outcomes",
    "read_events",
    "sampled_candidates",
]

# SPDX-License-Identifier: Apache-2.0
"""The example data sets: check-ins lie beside this module, the larger ones in ``examples/data`` of the source tree.

``nyc_checkins.md`` and the README there state their sources and licences.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longclock._keywords import meant
from longclock.data.stream import EventStream

Column = npt.NDArray[np.generic]

NYC_FILE = "nyc_checkins.npz"
MUSIC_FILE = "music_plays.npz"
FLIGHTS_FILE = "nycflights.npz"
BIKES_FILE = "bikeshare14.npz"


def find_data(file: str, data_dir: str | Path | None = None) -> Path:
    """Where ``file`` lies: in ``data_dir``, else beside this module or in ``examples/data`` of the source tree.

    Without ``data_dir`` the folders above this module and above the working directory are tried.

    Raises:
        FileNotFoundError: names the folders that were tried and the remedy.
    """
    if data_dir is not None:
        folders = [Path(data_dir)]
    else:
        here = Path(__file__).resolve().parent
        roots = [*here.parents, Path.cwd(), *Path.cwd().parents]
        folders = [here, *(root / "examples" / "data" for root in roots)]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    tried = str(folders[0]) if data_dir is not None else "examples/data of the source tree"
    raise FileNotFoundError(
        f"{file} was not found in {tried}: an installed package carries nyc alone, which needs no --data-dir; run the "
        "others from a clone of the source, or name the folder that holds them with --data-dir (in Python data_dir)"
    )


def _columns(file: str, data_dir: str | Path | None) -> dict[str, np.ndarray]:
    path = find_data(file, data_dir)
    try:
        with np.load(path) as columns:
            return dict(columns)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: is not the example data, or is damaged; take it from a clone of the source: {error}"
        ) from error


def nyc(data_dir: str | Path | None = None) -> EventStream:
    """Check-ins in New York: 95,000 positives of 535 users, with a strong time-of-day signal.

    Example::

        >>> from longclock.data import nyc
        >>> stream = nyc()
        >>> stream.users, stream.items, stream.category_names["category"][4]
        (535, 3817, 'Food')
    """
    file = _columns(NYC_FILE, data_dir)
    time = file["time"].astype(np.int64)
    return EventStream(
        name="nyc",
        user=file["user"].astype(np.int64),
        item=file["item"].astype(np.int64),
        time=time,
        order_time=time,
        categories={name: file[name].astype(np.int64) for name in ("category", "subcategory")},
        category_names={
            name: file[f"{name}_name"].tolist() for name in ("category", "subcategory")
        },
    )


def music(data_dir: str | Path | None = None) -> EventStream:
    """Complete listening histories of 7 people: 233,860 plays, labelled 1 from 30 s on.

    Example::

        >>> from longclock.data import music
        >>> stream = music()
        >>> len(stream), round(float(stream.label.mean()), 2)  # 58% were heard for 30 s
        (233860, 0.58)
    """
    file = _columns(MUSIC_FILE, data_dir)
    return EventStream(
        name="music",
        user=file["user"].astype(np.int64),
        item=file["item"].astype(np.int64),
        time=file["time"].astype(np.int64),
        order_time=file["time_utc"].astype(np.int64),
        label=file["label"].astype(np.int64),
        # Artists count from 0 without an unknown one: shift them, 0 means unknown everywhere.
        categories={
            "artist": file["artist"].astype(np.int64) + 1,
            "genre": file["genre"].astype(np.int64),
        },
        category_names={"genre": file["genre_name"].tolist()},
    )


def nycflights(data_dir: str | Path | None = None) -> EventStream:
    """Departures from New York's airports in 2013: 336,776 events, histories to 46,087 long.

    Who acts is one of 35 pairs of carrier and origin, and takes one of 105 destinations. It is a timetable: times
    of day repeat to the minute.

    Example::

        >>> from longclock.data import Histories, nycflights
        >>> int(Histories.of(nycflights()).lengths.max())  # what the last event of the longest sees
        46086
    """
    file = _columns(FLIGHTS_FILE, data_dir)
    return _positives("nycflights", file["user"], file["item"], file["time"])


def bikeshare14(data_dir: str | Path | None = None) -> EventStream:
    """Bike trips in the Bay Area, station to station: 326,339 events of 70 stations, histories to 25,144 long.

    Example::

        >>> from longclock.data import bikeshare14
        >>> stream = bikeshare14()
        >>> len(stream), stream.users, stream.items
        (326339, 70, 70)
    """
    file = _columns(BIKES_FILE, data_dir)
    return _positives("bikeshare14", file["user"], file["item"], file["time"])


def bikeshare14_home(data_dir: str | Path | None = None) -> EventStream:
    """The same trips by the rider's home area, where it is known: 192,774 events of 32 areas, each taking one of 70
    start stations; histories to 36,061 long.

    Example::

        >>> import numpy as np
        >>> from longclock.data import bikeshare14_home
        >>> stream = bikeshare14_home()
        >>> len(stream), len(np.unique(stream.user)), stream.items
        (192774, 32, 70)
    """
    file = _columns(BIKES_FILE, data_dir)
    known = file["home_area"] > 0
    columns = (file[name][known] for name in ("home_area", "user", "time"))
    return _positives("bikeshare14-home", *columns)


def _positives(name: str, user: Column, item: Column, time: Column) -> EventStream:
    """A stream without labels whose times are in order."""
    user, item, time = (column.astype(np.int64) for column in (user, item, time))
    return EventStream(name=name, user=user, item=item, time=time, order_time=time)


LOADERS = {
    "nyc": nyc,
    "music": music,
    "nycflights": nycflights,
    "bikeshare14": bikeshare14,
    "bikeshare14-home": bikeshare14_home,
}


def load(name: str, data_dir: str | Path | None = None) -> EventStream:
    """The data set called ``nyc``, ``music``, ``nycflights``, ``bikeshare14`` or ``bikeshare14-home``.

    Example::

        >>> from longclock.data import load
        >>> len(load("nyc").head(days=7))  # events of the first week
        2697
    """
    if name not in LOADERS:
        near = meant(str(name), LOADERS).removesuffix("; ")
        raise ValueError(
            f"load: name must be one of {', '.join(LOADERS)}, got {name!r}{near and f'; {near}'}"
        )
    return LOADERS[name](data_dir)

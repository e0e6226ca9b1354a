# SPDX-License-Identifier: Apache-2.0
"""The two data sets of ``examples/data``, whose README states their sources and licences."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from longclock.data.stream import EventStream

NYC_FILE = "nyc_checkins.npz"
MUSIC_FILE = "music_plays.npz"


def find_data(file: str, data_dir: str | Path | None = None) -> Path:
    """Where ``file`` lies: in ``data_dir``, else in ``examples/data`` of the source tree.

    Without ``data_dir`` the folders above this module and above the working directory are tried.

    Raises:
        FileNotFoundError: names the folders that were tried and the remedy.
    """
    if data_dir is not None:
        folders = [Path(data_dir)]
    else:
        roots = [*Path(__file__).resolve().parents, Path.cwd(), *Path.cwd().parents]
        folders = [root / "examples" / "data" for root in roots]
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    tried = str(folders[0]) if data_dir is not None else "examples/data of the source tree"
    raise FileNotFoundError(
        f"{file} was not found in {tried}: installed packages do not carry the example data; run from a "
        "clone of the source, or name the folder that holds it with --data-dir"
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
    """Check-ins in New York: 95,000 positives of 535 users, with a strong time-of-day signal."""
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
    """Complete listening histories of 7 people: 233,860 plays, labelled 1 from 30 s on."""
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


def load(name: str, data_dir: str | Path | None = None) -> EventStream:
    """The data set called ``nyc`` or ``music``."""
    loaders = {"nyc": nyc, "music": music}
    if name not in loaders:
        raise ValueError(f"data set must be one of {', '.join(loaders)}, got {name!r}")
    return loaders[name](data_dir)

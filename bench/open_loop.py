# SPDX-License-Identifier: Apache-2.0
"""Requests that come when they come, whatever the answers take.

Who waits for an answer before asking again asks seldom when answers are slow, and so does not see how long others would have
waited (coordinated omission). Here every request has a moment at which it is due, fixed before the first is sent, and its
latency counts from that moment: the time that it waits for a thread, or for those before it, is in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
CONNECTIONS = 400  # at one time, far more than a server lets wait
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What came of the requests of one run, in the order in which they were due.

    - ``due``, ``end``: seconds since the beginning.
    - ``answered``: False where a request was refused.
    """

    due: Seconds
    end: Seconds
    answered: npt.NDArray[np.bool_]

    @property
    def a_second(self) -> float:
        """Answers a second, until the last one was there."""
        return float(self.answered.sum() / max(self.end.max(), self.due.max()))

    def latency_ms(self) -> dict[str, float | None]:
        """Quantiles of what was answered; None where there are too few to tell."""
        taken = 1e3 * (self.end - self.due)[self.answered]
        return {
            name: float(np.quantile(taken, q)) if len(taken) * (1 - q) >= 1 else None
            for name, q in QUANTILES.items()
        }


def arrivals(rate: float, seconds: float, seed: int) -> Seconds:
    """When requests are due: a Poisson process, given that ``rate * seconds`` of them come."""
    count = max(1, round(rate * seconds))
    return np.sort(np.random.default_rng(seed).uniform(0, seconds, count))


def by_threads(ask: Callable[[int], Any], due: Seconds, threads: int) -> Answers:
    """Each of so many threads takes the next request, waits until it is due, and asks ``ask(number)``."""
    numbers, end = itertools.count(), np.zeros(len(due))
    errors: list[BaseException] = []
    begun = time.perf_counter() + 0.01 * threads  # all of them wait by then

    def work() -> None:
        try:
            while (number := next(numbers)) < len(due) and not errors:
                time.sleep(max(begun + due[number] - time.perf_counter(), 0))
                ask(number)
                end[number] = time.perf_counter() - begun
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return Answers(due, end, np.ones(len(due), bool))


class Client:
    """Posts bodies to a server of this machine over connections that stay open.

    As few lines as HTTP/1.1 needs: a client library takes as much of the processor as the server.
    """

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> int:
        """The status of the answer, once all of it is there."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        while True:
            used_before = bool(self._idle)
            if used_before:
                reader, writer = self._idle.pop()
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                break
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                if not used_before:  # the server closes what has been idle for long
                    raise
        found = LENGTH.search(answer)
        await reader.readexactly(int(found[1]) if found else 0)
        self._idle.append((reader, writer))
        return int(answer[9:12])

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def over_http(port: int, path: str, bodies: Sequence[bytes], due: Seconds) -> Answers:
    """Each body is sent when it is due, on a connection of its own where the others wait for answers, up to CONNECTIONS.

    Raises:
        RuntimeError: an answer that is neither a result nor the refusal of an overloaded server.
    """
    end, statuses = np.zeros(len(due)), np.zeros(len(due), int)

    async def all_of_them() -> None:
        client, room = Client(port, path), asyncio.Semaphore(CONNECTIONS)
        begun = time.perf_counter() + 0.1

        async def ask(number: int) -> None:
            await asyncio.sleep(begun + due[number] - time.perf_counter())
            async with room:
                statuses[number] = await client.post(bodies[number])
            end[number] = time.perf_counter() - begun

        await asyncio.gather(*map(ask, range(len(due))))
        client.close()

    asyncio.run(all_of_them())
    if wrong := set(statuses.tolist()) - {200, 429, 504}:
        raise RuntimeError(f"{path} answered with {wrong}")
    return Answers(due, end, statuses == 200)

# SPDX-License-Identifier: Apache-2.0
"""A Recommender behind HTTP: the Open Inference Protocol for rankings, and a way for new behaviours to come in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import orjson
import prometheus_client as prometheus
import torch
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import longclock
from longclock.data.ids import called, ids_of, text_ids
from longclock.data.stream import IntArray
from longclock.serve.inference_protocol import BadRequestError, Expected, answer, parse
from longclock.serve.model_folder import ModelFolderError
from longclock.serve.recommender import Ranking, Recommender
from longclock.serve.settings import Limits
from longclock.store import DamagedHistoryError
from longclock.store.records import User

Result = TypeVar("Result")
log = logging.getLogger("longclock.serve")
MODEL = "longclock"  # its name in the protocol's paths
INPUTS = (
    Expected("user", ("INT64", "BYTES"), (1,)),
    Expected("candidates", ("INT64", "BYTES"), (-1,)),
    Expected("now", ("INT64",), (1,), optional=True),
    Expected("utc_offset", ("INT64",), (1,), optional=True),
)
OUTPUTS = (Expected("items", ("INT64", "BYTES"), (-1,)), Expected("scores", ("FP32",), (-1,)))


class _AnswerError(Exception):
    """An answer other than a result."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class Metrics:
    """What Prometheus reads at /metrics."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.answers = prometheus.Counter(
            "longclock_answers",
            "Answers by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = prometheus.Histogram(
            "longclock_answer_seconds", "From the whole request to its answer.", ["path"], registry=self.registry,
            buckets=[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
        )  # fmt: skip
        self.waiting = prometheus.Gauge(
            "longclock_waiting",
            "Requests that wait for a thread or are being ranked.",
            registry=self.registry,
        )
        self.behaviours = prometheus.Counter(
            "longclock_behaviours", "New behaviours that were appended.", registry=self.registry
        )
        self.version = prometheus.Info(
            "longclock_model", "The version of the model that answers.", registry=self.registry
        )
        self.not_refreshed = prometheus.Counter(
            "longclock_refresh_failures",
            "Looks for a new version that failed.",
            registry=self.registry,
        )


class _Pool:
    """Threads, and a queue of at most so many calls before them."""

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self._pool, self._room = ThreadPoolExecutor(threads, name), threads + queue
        self.inside = 0  # the event loop alone changes it

    async def run(self, call: Callable[[], Result], seconds: float) -> Result:
        """The call's result.

        Raises:
            _AnswerError: there is no room, or no thread was free in time, and the call was not begun.
        """
        if self.inside >= self._room:
            raise _AnswerError(
                429, f"too many requests: {self._room} wait or run already", **{"retry-after": "1"}
            )
        future, given_up = self._pool.submit(call), []
        # What has begun cannot be cancelled.
        late = asyncio.get_running_loop().call_later(
            seconds, lambda: given_up.append(future.cancel())
        )
        self.inside += 1
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if given_up != [True]:
                raise
            raise _AnswerError(504, f"no thread was free within {seconds:g} s") from None
        finally:
            late.cancel()
            self.inside -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Endpoint:
    """The handlers; :func:`create_app` makes an application of them."""

    def __init__(self, recommender: Recommender, limits: Limits) -> None:
        self.recommender, self.limits, self.metrics = recommender, limits, Metrics()
        self._ranking = _Pool("rank", limits.threads, limits.queue)
        self.metrics.waiting.set_function(lambda: self._ranking.inside)
        self._appending = _Pool("append", limits.appending, limits.queue)
        self._ready = True
        self.metrics.version.info({"version": recommender.version})

    # Rankings, by the protocol.

    async def infer(self, request: Request) -> Response:
        self._check_model(request)
        asked = parse(request.headers, await self._body(request), INPUTS, OUTPUTS)
        top, timeout = (_positive(asked.parameters, name) for name in ("top", "timeout"))
        seconds = min(
            self.limits.deadline, self.limits.deadline if timeout is None else timeout / 1e6
        )
        given = asked.inputs
        now = int(given["now"][0]) if "now" in given else int(time.time())
        offset = int(given["utc_offset"][0]) if "utc_offset" in given else 0
        ids, texts = _items(given["candidates"])
        candidates = torch.from_numpy(ids)

        def rank() -> Ranking:
            return self.recommender.rank(
                user_of(given["user"][0]), candidates, now, top, utc_offset=offset
            )

        found = await self._ranking.run(rank, seconds)
        head: dict[str, Any] = {"model_name": MODEL, "model_version": found.version}
        if asked.id is not None:
            head["id"] = asked.id
        outputs: dict[str, Any] = {"items": found.items.numpy(), "scores": found.scores.numpy()}
        if texts is not None:
            outputs["items"] = [texts[item] for item in found.items.tolist()]
        body, headers = answer(head, outputs, asked.outputs)
        return Response(body, headers=headers)

    async def server_metadata(self, request: Request) -> Response:
        return _json(
            {
                "name": "longclock",
                "version": longclock.__version__,
                "extensions": ["binary_tensor_data"],
            }
        )

    async def model_metadata(self, request: Request) -> Response:
        self._check_model(request)
        return _json(
            {
                "name": MODEL, "versions": [self.recommender.version], "platform": "pytorch_longclock",
                "inputs": [each.metadata() for each in INPUTS], "outputs": [each.metadata() for each in OUTPUTS],
            }
        )  # fmt: skip

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        if "model" in request.path_params:
            self._check_model(request)
        return _json({"ready": self._ready}, 200 if self._ready else 503)

    def _check_model(self, request: Request) -> None:
        name, version = (request.path_params.get(each) for each in ("model", "version"))
        if name != MODEL:
            raise _AnswerError(404, f"the model must be {MODEL!r}, got {name!r}")
        if version is not None and version != self.recommender.version:
            raise _AnswerError(
                404,
                f"version must be the current one, {self.recommender.version!r}, got {version!r}; leave it out",
            )

    # Behaviours.

    async def append(self, request: Request) -> Response:
        user = user_of(request.path_params["user"])
        try:
            given = orjson.loads(await self._body(request))
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"the body must be JSON, got what is none: {error}") from None
        behaviours = given if isinstance(given, list) else [given]
        names = ("item", "time", *self.recommender.store.columns)
        for each in behaviours:
            if not isinstance(each, dict) or set(each) != set(names):
                raise BadRequestError(
                    f"a behaviour must be an object of {', '.join(names)}, got {each!r:.200}"
                )
        columns = {name: [each[name] for each in behaviours] for name in names}
        items, times = columns.pop("item"), columns.pop("time")
        items = [ids_of([item])[0] if isinstance(item, str) else item for item in items]

        def append() -> int:
            return self.recommender.store.append_many(
                [user] * len(behaviours), items, times, **columns
            )

        new = await self._appending.run(append, self.limits.deadline)
        self.metrics.behaviours.inc(new)
        return _json({"new": new})

    # The rest of a server.

    async def show_metrics(self, request: Request) -> Response:
        return Response(
            prometheus.generate_latest(self.metrics.registry),
            media_type=prometheus.CONTENT_TYPE_LATEST,
        )

    async def _body(self, request: Request) -> bytes:
        too_long = _AnswerError(413, f"the body must be at most {self.limits.body} bytes")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.body:
            raise too_long
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.limits.body:
                raise too_long
            parts.append(part)
        return b"".join(parts)

    def measured(self, path: str, handler: Callable[[Request], Awaitable[Response]]) -> Any:
        """The handler, with errors as answers, counted and timed."""

        seconds = self.metrics.seconds.labels(path)

        async def handle(request: Request) -> Response:
            begun = time.perf_counter()
            response = await self._answered(handler, request)
            self.metrics.answers.labels(path, str(response.status_code)).inc()
            seconds.observe(time.perf_counter() - begun)
            return response

        return handle

    async def _answered(
        self, handler: Callable[[Request], Awaitable[Response]], request: Request
    ) -> Response:
        try:
            return await handler(request)
        except _AnswerError as error:
            return _json({"error": error.text}, error.status, error.headers)
        except DamagedHistoryError as error:
            log.error("%s", error)
            return _json({"error": str(error)}, 500)
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            log.exception("a request failed")
            return _json({"error": f"{type(error).__name__}: {error}"}, 500)

    async def _refresh(self) -> None:
        """Switches to new versions of the model, until it is cancelled."""
        while True:
            await asyncio.sleep(self.limits.refresh)
            try:
                if await asyncio.to_thread(self.recommender.refresh):
                    log.info("version %s answers now", self.recommender.version)
                    self.metrics.version.info({"version": self.recommender.version})
            except (ModelFolderError, ValueError, OSError) as error:
                self.metrics.not_refreshed.inc()
                log.error("version %s goes on: %s", self.recommender.version, error)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        refreshing = asyncio.create_task(self._refresh())
        try:
            yield
        finally:
            self._ready = False
            refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refreshing
            self._ranking.close()
            self._appending.close()
            self.recommender.store.close()


def create_app(recommender: Recommender, limits: Limits | None = None) -> Starlette:
    """An ASGI application, for uvicorn or another server; it closes the recommender's store when it ends."""
    of = Endpoint(recommender, limits or Limits())
    model = "/v2/models/{model}"
    routes: list[tuple[str, str, Any]] = [  # those that are asked most first
        ("POST", f"{model}/infer", of.infer),
        ("POST", "/users/{user}/behaviours", of.append),
        ("GET", "/v2", of.server_metadata),
        ("GET", "/v2/health/live", of.live),
        ("GET", "/v2/health/ready", of.ready),
        ("GET", model, of.model_metadata),
        ("GET", f"{model}/ready", of.ready),
        ("GET", f"{model}/versions/{{version}}", of.model_metadata),
        ("GET", f"{model}/versions/{{version}}/ready", of.ready),
        ("POST", f"{model}/versions/{{version}}/infer", of.infer),
        ("GET", "/metrics", of.show_metrics),
    ]
    return Starlette(
        routes=[
            Route(path, of.measured(path, handler), methods=[method])
            for method, path, handler in routes
        ],
        lifespan=of.lifespan,
    )


def user_of(given: Any) -> User:
    """A text that spells a number is that number, however it came: paths have no types."""
    return called(given) if isinstance(given, str) else int(given)


def _items(given: Any) -> tuple[IntArray, dict[int, str] | None]:
    """The ids of candidates, and where they came as texts the text of each."""
    if not isinstance(given, list):
        return np.array(given, np.int64), None
    ids = text_ids(given)
    return ids, dict(zip(ids.tolist(), given, strict=True))


def _positive(parameters: dict[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise BadRequestError(f"parameter {name} must be a positive integer, got {value!r}")
    return value


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")

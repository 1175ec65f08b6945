"""The connections of the web API: how many there may be, and for how long a client may keep the server waiting.

Anybody who reaches the port, with a token or without one, can open connections and send nothing, or a byte now and
then. So there is a bound. Where it is reached, a new connection takes the place of the one whose client has kept the
server waiting for longest: an operator's request comes with its connection and is answered, while connections that
are only held get lost. Besides, a client has some seconds for a whole request, and as many to take its answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from typing_extensions import override
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from statevault.storage.descriptors import DESCRIPTORS, descriptor_limit

__all__ = ["MAX_CONNECTIONS", "BoundedServer", "OnceAMinute"]

_logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""At most so many at a time, and an eighth of the descriptors that the process may have."""
_FEWEST_CONNECTIONS = 8
_CLIENT_TIMEOUT_S = 10.0
_GRACE_S = 0.2
_GRACE_ROUNDS = 10
"""How long a connection is new, and safe from those after it, so that its request can come and be answered: so many
seconds, and then rounds of the event loop, which may be slow."""
_PAUSE_S = 0.02


class OnceAMinute(logging.Filter):
    """Lets a message pass once a minute, whatever its arguments: clients must not be able to fill the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed_at: dict[str, float] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now - self._passed_at.get(record.msg, -math.inf) < 60:
            return False
        self._passed_at[record.msg] = now
        return True


_logger.addFilter(OnceAMinute())


class _Connections(dict["_Connection", None]):
    """All connections, oldest first."""

    def drop_one(self) -> bool:
        """Close the oldest whose client is waited for, but no new one; the oldest of all where most are being served.

        Returns:
            Whether there was one to close.
        """
        old = [connection for connection in self if not connection.is_new]
        dropped = next((connection for connection in old if connection.is_awaited), None)
        if dropped is None and len(old) > len(self) // 2:
            dropped = old[0]
        if dropped is None:
            return False
        del self[dropped]
        dropped.transport.abort()
        return True


class _Connection(H11Protocol):
    """A connection, closed when its client keeps the server waiting for too long."""

    def __init__(self, connections: _Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.logger = _logger  # uvicorn's tells of each request that is none
        self._connections = connections
        self.is_new = True
        self.is_awaited = True
        self._timeout: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connections[self] = None
        self.loop.call_later(_GRACE_S, self._grow_old, _GRACE_ROUNDS)
        self._begin_turn()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.pop(self, None)
        if self._timeout is not None:
            self._timeout.cancel()
        super().connection_lost(exc)
        self.loop.call_soon(DESCRIPTORS.keep)  # the socket is closed after this

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._look()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._look()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._begin_turn()

    def _grow_old(self, rounds: int) -> None:
        if rounds:
            self.loop.call_soon(self._grow_old, rounds - 1)
        else:
            self.is_new = False

    def _look(self) -> None:
        if self.is_awaited is not self._awaits_client():
            self._begin_turn()

    def _awaits_client(self) -> bool:
        # uvicorn's cycle is None at first, whatever its annotation says.
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused  # type: ignore[redundant-expr]

    def _begin_turn(self) -> None:
        """It is the client's turn, or the server's, from now on."""
        if self.transport.is_closing() and self._timeout is not None:
            return  # what is left to do is to take the answer
        self.is_awaited = self._awaits_client()
        if self._timeout is not None:
            self._timeout.cancel()
        self._timeout = self.loop.call_later(_CLIENT_TIMEOUT_S, self.transport.abort) if self.is_awaited else None


class BoundedServer(Server):
    """uvicorn's server, with an accept loop that keeps to the bound, and bears a lack of descriptors.

    Args:
        config: As for uvicorn.
        listeners: Sockets that listen; they stay the caller's.

    Attributes:
        is_up: Set when it accepts connections, and all that it needs is loaded.
    """

    def __init__(self, config: Config, listeners: Sequence[socket.socket]) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self._listeners = listeners
        self._connections = _Connections()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._limit = max(_FEWEST_CONNECTIONS, min(MAX_CONNECTIONS, descriptor_limit() // 8))
        self._limit_in_need = self._limit // 4

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # It gets no listeners: asyncio would accept without bounds, and log each failure with its traceback.
        await super().startup(sockets=[])
        asyncio.get_running_loop().set_exception_handler(_log_problem)
        await run_in_threadpool(bool)  # loads modules, for which there may be no descriptor later
        for listener in self._listeners:
            listener.setblocking(False)
            self._listen(listener)
        self.is_up.set()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
        await super().shutdown(sockets=[])
        for connection in self._connections:  # of clients that do not take their answer
            connection.transport.abort()

    def _listen(self, listener: socket.socket) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        if not self._has_room_for_one():
            self._pause(listener)
            return
        try:
            # A few, also where saves have lost all that they may: somebody must be able to see that.
            with DESCRIPTORS.to_the_last():
                accepted, _ = DESCRIPTORS.instead(listener.accept)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            _logger.warning("the web API can't take connections: %s", error)
            self._pause(listener)
            return
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        task = loop.create_task(loop.connect_accepted_socket(self._connection, accepted))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def _has_room_for_one(self) -> bool:
        """Whether there is room for a connection; closes old ones where it has to, and may."""
        limit = self._limit if DESCRIPTORS.are_whole else self._limit_in_need
        while (count := len(self._connections) + len(self._beginning)) >= limit:
            _logger.warning(
                "the web API has %d connections, as many as it may: old ones are closed for new ones", count
            )
            if not self._connections.drop_one():
                return False
        return True

    def _pause(self, listener: socket.socket) -> None:
        """Accept nothing for a moment; who comes meanwhile waits in the listener's queue."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(_PAUSE_S, self._listen, listener)

    def _connection(self) -> _Connection:
        return _Connection(
            self._connections, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _log_problem(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _logger.error("a problem of the web API: %s", context["message"], exc_info=context.get("exception"))

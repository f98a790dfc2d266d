"""The application's start and end, as uvicorn asks for them; a start that fails is told in one line."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.lifespan.on import LifespanOn

if TYPE_CHECKING:
    from uvicorn.lifespan.on import LifespanSendMessage


class Lifespan(LifespanOn):
    """uvicorn's lifespan, which keeps what the application says of a start that failed.

    uvicorn logs that, and then once more that the start has failed; here the second line is logged
    only where the application says nothing.

    Args:
        config: uvicorn's configuration, loaded.

    Attributes:
        problem: What the application said; None where it has started, or has said nothing.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.problem: str | None = None
        self._main: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Starts the application, and waits until it has started or has failed."""
        self.logger.info("Waiting for application startup.")
        # Kept: a task that nobody holds may be collected.
        self._main = asyncio.get_running_loop().create_task(self.main())
        await self.receive_queue.put({"type": "lifespan.startup"})
        await self.startup_event.wait()
        if self.startup_failed or (self.error_occurred and self.config.lifespan == "on"):
            if self.problem is None:
                self.logger.error("Application startup failed. Exiting.")
            self.should_exit = True
        else:
            self.logger.info("Application startup complete.")

    async def send(self, message: LifespanSendMessage) -> None:
        """Takes what the application says."""
        if message["type"] == "lifespan.startup.failed":
            self.problem = message.get("message") or None
        await super().send(message)

"""The whole daemon in this process, with configs that a test chooses."""

from __future__ import annotations

from support.whole import Whole


class Reloaded(Whole):
    """A daemon whose next config a test chooses; open with ``async with``."""

    def __init__(self, monkeypatch, config, make_provider):
        super().__init__(monkeypatch, config, {})
        self.next, self.taken, self.reads = config, [], 0
        self.daemon.read_config = self._read
        self.daemon.on_reload = self.taken.append
        self.daemon.make_provider = make_provider

    def _read(self):
        self.reads += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def reload(self, config):
        """Ask for *config*; returns whether it was taken."""
        self.next, reads, taken = config, self.reads, len(self.taken)
        refusals = []
        self.daemon.monitoring.observe_config = lambda *, is_taken: refusals.append(is_taken)
        self.daemon.reload_asked.set()
        await self.until(lambda: self.reads > reads and refusals)
        return len(self.taken) > taken

"""The queue engine on SQLite, for one machine."""

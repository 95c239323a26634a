"""The queue: its interface (engine.py) and its two engines, on SQLite and on PostgreSQL."""

"""The queue: its seam (engine.py), and the embedded engine on SQLite behind it."""

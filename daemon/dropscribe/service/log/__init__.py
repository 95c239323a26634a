"""The log: its lines, where they go, and what they must not show."""

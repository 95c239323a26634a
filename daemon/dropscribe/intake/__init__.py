"""Inboxes → jobs: hints say where to look, listings are the truth, settling decides when.

One thread an inbox, so that a mount that hangs disturbs neither the other rules nor the event loop.
"""

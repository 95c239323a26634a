"""Inboxes → jobs: hints trigger early looks, listings find all files, settling sets the time of hand-over.

Each inbox has its own thread, so that a hanging mount disturbs neither other rules nor the event loop.
"""

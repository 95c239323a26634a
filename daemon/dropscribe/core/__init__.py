"""Decisions, pure: no I/O, no clock, no asyncio, no logging.

Time, jitter and what was seen on disk come in as arguments; what to do comes out as data.
"""

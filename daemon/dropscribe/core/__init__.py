"""Decisions, pure: no I/O, no clock, no asyncio, no logging.

Time, jitter and observations of the disk are arguments; decisions are returned as data.
"""

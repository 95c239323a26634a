"""The system calls on users' files, in one place: open, look, write durably, move without overwriting.

Everything above works with bytes paths and these functions, so a fault (ENOSPC, EIO, EXDEV, …) has one
place to happen, and a test one place to inject it.
"""

"""The system calls on users' files, in one place: open, look, write durably, move without overwriting.

All other packages use these functions with bytes paths, so that a fault (ENOSPC, EIO, EXDEV, …) can only
happen here, and tests inject faults here.
"""

"""Turns drop folders of audio into transcripts, and loses nothing.

ARCHITECTURE.md beside this file is the map.
"""

__version__ = "0.1.0"

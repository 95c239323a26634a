"""Hints: the sources that report which path of an inbox to look at."""

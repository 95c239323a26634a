"""Builds the daemon's objects and joins them."""

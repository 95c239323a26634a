"""Notation of values in the config: durations, sizes, names, secrets."""

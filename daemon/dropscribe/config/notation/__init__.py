"""How values are written in the config: durations, sizes, names, secrets."""

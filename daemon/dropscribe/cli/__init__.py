"""The command line: one file per command; the only place that turns errors into messages and exit codes."""

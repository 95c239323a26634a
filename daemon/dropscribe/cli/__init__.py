"""The command line: one file for each command; only here errors become messages and exit codes."""

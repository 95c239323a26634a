"""The command line: a file a command, and the only place where errors become words and exit codes."""

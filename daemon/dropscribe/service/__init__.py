"""The house's face to the machine: systemd, signals, logs, metrics, the http listener, hooks."""

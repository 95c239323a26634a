"""Connections to the machine: systemd, signals, logs, metrics, heartbeat, hooks, notifications."""

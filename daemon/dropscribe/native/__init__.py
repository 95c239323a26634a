"""Decoding and speech recognition in worker processes; the daemon itself loads no native library."""

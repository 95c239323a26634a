"""The log: its lines, their destination, and the masking of secrets."""

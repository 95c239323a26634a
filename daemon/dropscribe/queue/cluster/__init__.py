"""The queue engine on PostgreSQL, shared by several machines."""

"""SQL shared by both queue engines."""

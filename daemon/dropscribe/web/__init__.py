"""The listener: metrics, health, status, and the page. Imported only where ``http:`` is configured."""

"""One HTTP request at a time: the connection, the body that goes up, the bounded answer."""

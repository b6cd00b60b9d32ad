"""Questions, replies and expiry."""

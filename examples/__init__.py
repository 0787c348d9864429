"""Services to read: small, whole, tested."""

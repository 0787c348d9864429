"""What crosses the wire, one module per owning service; imports no driver."""

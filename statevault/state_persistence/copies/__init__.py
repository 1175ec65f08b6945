"""States of one store in another: read, verified, and published there."""

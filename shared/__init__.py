"""What crosses a process border, or must be identical on both sides of one. Imports no service."""

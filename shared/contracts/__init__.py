"""The wire: every shape that one process sends and another reads. Pure: no I/O, no clock."""

"""The command line. Each command parses its arguments, talks to the API or the local stack, and prints; it decides nothing."""

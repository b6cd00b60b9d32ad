"""The storm: many runs and clients at once, one part after the other killed at random, and one checker of what must hold."""

"""Processes and nothing else: born, seen, bounded and ended with everything below them. It knows no engine."""

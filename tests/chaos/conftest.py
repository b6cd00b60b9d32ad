"""Chaos shares the end-to-end tests' stacks and their invariant."""

from tests.e2e.conftest import session_stack, stack

__all__ = ["session_stack", "stack"]

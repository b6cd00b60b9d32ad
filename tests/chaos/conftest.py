"""Chaos shares the end-to-end tests' stacks and their invariant."""

from tests.e2e.conftest import own_folder, session_stack, stack

__all__ = ["own_folder", "session_stack", "stack"]

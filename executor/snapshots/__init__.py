"""Workspaces kept where every executor of a fleet finds them, and laid anew from there."""

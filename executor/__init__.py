"""The executor: the only place where an engine process runs. It ends attempts, never runs."""

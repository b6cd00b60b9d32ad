"""Pure projections of the one log and the one status. They read rows and give shapes; they decide nothing."""

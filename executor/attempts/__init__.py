"""The life of an attempt on this executor: prepared, run by one runner, ended for one reason, told, released."""

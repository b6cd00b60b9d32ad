"""The engines as they stand ready here: which, with what credentials, environment and arguments."""

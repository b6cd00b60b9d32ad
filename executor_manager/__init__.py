"""The executor manager: finds an executor, passes bytes through, holds no truth."""

"""The control plane: decides and remembers. Every run is a row in Postgres before anything else happens."""

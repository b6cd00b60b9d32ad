"""A whole Runyard on one machine: an embedded Postgres, the services as processes, and the supervisor that owns them.

It starts services by their command line and never imports one.
"""

"""``runyard harness``: an engine under the user's own arguments, read by its adapter. It knows no service."""

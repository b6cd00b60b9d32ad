"""The life of a run, one phase per file: create, dispatch, drive, attend, record, deliver, control, read, follow, reap."""

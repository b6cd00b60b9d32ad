"""What a run is and may become: pure, no I/O and no clock."""

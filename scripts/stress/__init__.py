"""Many runs at once through a live Runyard, each followed by an SSE client of its own, and a report of how each ended and why."""

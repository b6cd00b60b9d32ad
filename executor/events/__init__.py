"""What an attempt tells: numbered, coalesced, its secrets taken out, kept on disk until its driver has it."""

"""The folders engines work in, what of them is shown, and how they go. No path from outside is trusted here."""

"""One file per resource: parse → one use case → answer. No decisions here."""

"""Messages to ids and back, which turn a request answers, and what must not reach the disk. No torch here."""

"""What happened (log.db), what was learned from it (learning.db) and the versions that came out (versions/)."""

"""Skills: what finished episodes taught, as SKILL.md folders that people read and a teacher is shown."""

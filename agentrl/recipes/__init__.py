"""Learning methods as data: the schema of the axes, their presets, credit, routes and schedules. No torch."""

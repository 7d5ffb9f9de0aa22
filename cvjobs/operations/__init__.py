"""Running it day by day: nights of commands, schedules, the check of the machine."""

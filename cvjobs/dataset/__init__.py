"""The output of a batch job: immutable parts, one fold that publishes snapshots, exactly one row per image."""

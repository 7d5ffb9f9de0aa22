"""The output of a batch job: immutable parts, one merge that publishes snapshots, exactly one row per image."""

"""Places to run: clusters that are started, connected to and asked through the Jobs API."""

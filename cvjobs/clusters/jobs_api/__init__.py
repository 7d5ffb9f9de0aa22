"""The same command line as a job on a Ray cluster: sent, followed and stopped through Ray's Jobs API."""

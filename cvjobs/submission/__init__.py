"""The same command line as a job on a Ray cluster: sent, followed, looked at and stopped through Ray's Jobs API.

``server`` speaks to the cluster, ``commandline`` writes the command, ``travel`` is the code that goes along,
``sending`` puts a job there, ``following`` shows its log and returns its exit code, ``inside`` is what differs in it.
Nothing here imports Ray: the API is plain HTTP, and a client may have another version of Ray than the cluster.
"""

"""The package ``cvjobs.jobs``: the drivers, in the installed folder or in a checkout's sibling one."""

from cvjobs.paths import shipped

__path__ = [str(shipped("jobs"))]

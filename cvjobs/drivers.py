"""The package ``cvjobs.drivers``: the drivers, in the installed folder or in a checkout's sibling one."""

from cvjobs.common.paths import shipped

__path__ = [str(shipped("jobs"))]

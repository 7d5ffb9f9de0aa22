"""The page that every run of a batch job leaves in its output, and the history that it compares the run with."""

from cvjobs.report.page import Run, leave
from cvjobs.report.speed import Speed

__all__ = ["Run", "Speed", "leave"]

"""What the page of a training shows of each task."""

from __future__ import annotations

from cvjobs.training.plan import TaskName
from cvjobs.training.report import classifier, reconstructions, segmented
from cvjobs.training.report.training_page import Section

SECTIONS: dict[TaskName, Section] = {
    "classify": classifier.values,
    "autoencoder": reconstructions.values,
    "segment": segmented.values,
}

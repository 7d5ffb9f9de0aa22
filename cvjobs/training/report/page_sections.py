"""What the page of each task has to show at its end."""

from __future__ import annotations

from cvjobs.training.plan import TaskName
from cvjobs.training.report import classifier, instance_pictures, object_pictures, reconstructions, segmented
from cvjobs.training.report.training_page import Section

SECTIONS: dict[TaskName, Section] = {
    "classify": classifier.values,
    "autoencoder": reconstructions.values,
    "segment": segmented.values,
    "detect": object_pictures.values,
    "instance": instance_pictures.values,
}

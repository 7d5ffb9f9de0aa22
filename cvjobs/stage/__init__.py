"""The Stage: fetch, decode, batch, model and write, all overlapped, in one long-lived object.

One Stage owns one GPU, or the CPUs of one machine or actor. Shards of key rows go in; rows come to rest in parts.
"""

from cvjobs.stage.assembly import Done, Stage, StageSpec
from cvjobs.stage.pace import Pace
from cvjobs.stage.steps import Columns, Opener, Picture, PictureStep, Step

__all__ = ["Columns", "Done", "Opener", "Pace", "Picture", "PictureStep", "Stage", "StageSpec", "Step"]

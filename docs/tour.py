# %% [markdown]
# # A tour of cvjobs in Python
#
# Every command is a function with the same options; its results are Parquet, so pandas, DuckDB and Arrow read them.
# Open this file as a notebook (VS Code, Jupytext), or run it:
# `python docs/tour.py PHOTOS FOLDER [--weights random]`

# %%
"""Labels, boxes, masks and vectors of a folder of photos, and what to do with them."""

import argparse
from pathlib import Path

import pandas as pd

import cvjobs

parser = argparse.ArgumentParser()
parser.add_argument("photos", nargs="?", default="photos")
parser.add_argument("folder", nargs="?", type=Path, default=Path("tour"))
parser.add_argument("--weights", default="pretrained", help="random needs no network, and knows nothing")
tour = parser.parse_args()
photos, folder, weights = tour.photos, tour.folder, tour.weights

# %% [markdown]
# ## What is in each photo?
# A call does what the command does: killed, it continues; called again tomorrow, it computes what is new or changed.

# %%
summary = cvjobs.classify(photos, folder / "labels", weights=weights, top=3)
print(summary)
labels = summary.to_pandas()  # later, cvjobs.open(folder / "labels").to_pandas()
print(labels[["path", "label", "score"]].sort_values("score", ascending=False).to_string(index=False))

# %% [markdown]
# ## Where are the objects?
# One row is one image; its detections are a list. `explode` makes one row of each.

# %%
cvjobs.detect(photos, folder / "boxes", model="torchvision/ssdlite320_mobilenet_v3_large", weights=weights, conf=0.01)
boxes = cvjobs.open(folder / "boxes").to_pandas()
objects = boxes[["path", "detections"]].explode("detections").dropna()
objects = objects[["path"]].join(pd.DataFrame(objects["detections"].tolist(), index=objects.index), how="left")
print(objects.groupby("label").size().sort_values(ascending=False).head(10))

# %% [markdown]
# ## Which pixels?
# `class_map` is a PNG of class numbers, as large as the photo; `classes` counts its pixels.

# %%
cvjobs.segment(photos, folder / "areas", model="torchvision/lraspp_mobilenet_v3_large", weights=weights, imgsz=256)
areas = cvjobs.open(folder / "areas").to_pandas()
for path, width, height, classes in areas[["path", "width", "height", "classes"]].itertuples(index=False):
    print(path, {entry["label"]: round(entry["pixels"] / (width * height), 2) for entry in classes[:3]})

# %% [markdown]
# ## The same in another tool's format, and how good it is

# %%
print(cvjobs.export(folder / "boxes", folder / "boxes.json", "coco"))
score = cvjobs.eval(
    folder / "boxes", folder / "boxes.json", out=folder / "score"
)  # against itself: all but empty boxes
print(score)
print(score.to_pandas().head())  # one row a class

# %% [markdown]
# ## Which photos look alike?

# %%
cvjobs.embed(photos, folder / "vectors", weights=weights)
cvjobs.index(folder / "vectors", out=folder / "index")
answer = cvjobs.query(folder / "index", folder / "vectors", out=folder / "neighbours", k=2, exclude_self=True)
near = answer.to_pandas()
print(near[near["rank"] == 1].sort_values("score", ascending=False).head(5).to_string(index=False))

# %% [markdown]
# Each output has a page to look at: `report.html` in its folder.

# %%
print(*sorted(page.as_posix() for page in folder.rglob("report.html")), sep="\n")

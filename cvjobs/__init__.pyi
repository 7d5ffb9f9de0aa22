# Made by docs/command_reference.py from the options of the commands.
"""Batch computer-vision jobs over large collections of images: every command is a function."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, overload

from collections.abc import Mapping
from collections.abc import Sequence
from cvjobs.clusters.files import Status
from cvjobs.clusters.jobs_api.server import ClusterJob
from cvjobs.common.errors import CvjobsError as CvjobsError
from cvjobs.common.errors import JobFailed as JobFailed
from cvjobs.common.errors import LimitReached as LimitReached
from cvjobs.common.errors import LimitSpent as LimitSpent
from cvjobs.common.errors import OutputHeld as OutputHeld
from cvjobs.common.errors import Stopped as Stopped
from cvjobs.common.errors import StoreUnreachable as StoreUnreachable
from cvjobs.common.errors import TooManyFailed as TooManyFailed
from cvjobs.common.errors import WrongUse as WrongUse
from cvjobs.common.tabular import Readable
from cvjobs.common.tabular import Tabular
from cvjobs.dataset.export import Exported
from cvjobs.dataset.folder_report import FolderReport
from cvjobs.dataset.snapshot_reader import Dataset
from cvjobs.dataset.verify import VerifyReport
from cvjobs.evaluation.result import Evaluation
from cvjobs.indexing.index_report import IndexReport
from cvjobs.indexing.search.answers import Duplicates
from cvjobs.indexing.search.answers import Neighbours
from cvjobs.inspection.data_check import DataCheck
from cvjobs.networks.catalogue.catalogue import CatalogueEntry
from cvjobs.networks.model_card import ModelCard
from cvjobs.operations.doctor.finding import Checked
from cvjobs.operations.nightly.outcome import Outcome
from cvjobs.prediction.dry_run import Forecast
from cvjobs.prediction.summary import Summary
from cvjobs.training.checks.lr_range import LearningRate
from cvjobs.training.run_export import ExportedModel
from cvjobs.training.training_summary import TrainingSummary
import pyarrow as pa

__version__: str

class Families(dict[str, list[str]], Tabular):
    """The names of models by family; as text one on each line, as they are typed after ``--model``, with the rest."""

    def __init__(self, entries: Mapping[str, list[CatalogueEntry]], lacking: Mapping[str, str], tasks: Sequence[str]) -> None:
        """``lacking`` is what installs a family that is not here; the models are for the first of ``tasks``."""
        ...

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The models, one record each: names, ``tasks``, ``parameters`` (a number or None), ``size`` and licences."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return the names as JSON types, and in ``models`` the rows."""
        ...

    def to_arrow(self, columns: list[str] | None=None) -> pa.Table:
        """Return the models, one row each: ``family``, ``model`` as it is typed after ``--model``, and what it has."""
        ...

    def __str__(self) -> str:
        ...

class Files(dict[str, str], Readable):
    """The files' contents by name; as text the contents, or the places in the folder that the files were written to."""

    def __init__(self, contents: dict[str, str], folder: str | None) -> None:
        ...

    def as_dict(self) -> dict[str, str]:
        """Return the contents by name, as JSON types."""
        ...

    def __str__(self) -> str:
        ...

@dataclass(frozen=True, kw_only=True)
class Unlocked(Readable):
    """Who held an output; ``heartbeat`` is the last one, in s since 1970.

    Nothing did where ``held`` is False; what the record does not tell, for it is damaged, is empty or 0.
    """
    out: str
    held: bool = False
    host: str = ''
    pid: int = 0
    since: str = ''
    heartbeat: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        ...

    def __str__(self) -> str:
        ...

    @property
    def holder(self) -> str:
        """Who held it, in words."""
        ...

def open(
    out: str | os.PathLike[str],
    storage_options: Mapping[str, str] | None = None,
) -> Dataset:
    """Open an output's newest snapshot: its ``to_arrow()``, ``to_pandas()`` and ``to_ray()`` are one row per image.

    Args:
        out (str | os.PathLike[str]): The -o folder of `cvjobs embed`, `classify`, `detect` or `segment`, or its URL.
        storage_options (Mapping[str, str] | None): The settings of --storage-option, as in
            ``{"endpoint": "http://127.0.0.1:9000"}``. Default: None.

    Raises:
        WrongUse: There is no finished output.
        JobFailed: It is damaged, or its store fails.
    """

def check(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    truth: list[str] | tuple[str, ...] = (),
    labels: str | os.PathLike[str] | None = None,
    vectors: str | os.PathLike[str] | None = None,
    val: float = 0.2,
    img_size: int = 640,
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    exclude: list[str] | tuple[str, ...] = (),
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    json: bool = False,
) -> DataCheck:
    """Look at data before anything is spent on them: every image decoded, classes counted, what is wrong, as a page.

    DATA is what `cvjobs train` takes: class folders, a list with labels, or a folder with COCO's, VOC's or YOLO's boxes or
    with masks. With --truth it is the images of a truth that `cvjobs eval` reads. Exit code 0: nothing is to be corrected;
    1: something is.

    For example `cvjobs.check("photos", "look")`, `cvjobs check images --truth annotations.json -o look`.

    Args:
        data (str | os.PathLike[str]): The images: a folder of class folders or with boxes or masks, or
            a list; with --truth any of both.
        out (str | os.PathLike[str]): The folder for the page, the numbers and the table.
        truth (list[str] | tuple[str, ...]): A truth of the images, as `cvjobs eval` takes it, perhaps
            all of one split (train, val or test); repeat the option for more. Default: () (the boxes,
            masks or labels that DATA has).
        labels (str | os.PathLike[str] | None): A file with the names of classes that are numbers, one
            on each line. Default: None.
        vectors (str | os.PathLike[str] | None): The output of `cvjobs embed` on these images, or an
            index of it, which tells what is nearly the same in two splits, and which labels most
            neighbours do not have. Default: None.
        val (float): The share of the images to validate with, as `cvjobs train` chooses them, where the
            data have no val split. Default: 0.2.
        img_size (int): The shorter side in pixels of a model's input, at which the sizes of objects are
            told. Default: 640.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        DataCheck: what was found; its rows are the problems.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def classify(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: Literal[True],
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    model: str | os.PathLike[str] = 'torchvision/mobilenet_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    top: int = 5,
    decode: Literal['auto', 'cpu', 'gpu'] = 'auto',
) -> Forecast:
    """Name what every image shows: its likeliest classes and their scores, one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.classify("photos", "labels", model="torchvision/mobilenet_v2")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            classify` lists them; or hf/FOLDER, onnx/FILE. Default: 'torchvision/mobilenet_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        top (int): The number of classes to keep for each image, best first. Default: 5.
        decode (Literal['auto', 'cpu', 'gpu']): What decodes JPEGs, which later runs keep: gpu decodes
            those that it decodes right, beside the processor; auto is cpu for a new output. Default:
            'auto'.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def classify(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: bool = False,
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    model: str | os.PathLike[str] = 'torchvision/mobilenet_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    top: int = 5,
    decode: Literal['auto', 'cpu', 'gpu'] = 'auto',
) -> Summary | Any:
    """Name what every image shows: its likeliest classes and their scores, one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.classify("photos", "labels", model="torchvision/mobilenet_v2")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            classify` lists them; or hf/FOLDER, onnx/FILE. Default: 'torchvision/mobilenet_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        top (int): The number of classes to keep for each image, best first. Default: 5.
        decode (Literal['auto', 'cpu', 'gpu']): What decodes JPEGs, which later runs keep: gpu decodes
            those that it decodes right, beside the processor; auto is cpu for a new output. Default:
            'auto'.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def cluster(
    action: Literal['up', 'down', 'status'],
    name: str = 'local',
    *,
    json: bool = False,
) -> Status:
    """Start, end and look at a place to run: `cvjobs cluster up local`, then --address http://127.0.0.1:8265.

    `local` is this machine: a Ray head that stays until `down`, reached from this machine only. The others need your
    values first: copy `hosts` (machines over SSH), `aws` or `kuberay`, fill in the copy and name it, as in
    `cvjobs cluster up ./hosts.yaml`.

    Args:
        action (Literal['up', 'down', 'status']): The action: start, end, or look at the cluster.
        name (str): The cluster: a file of cluster/ by its name (aws, hosts, kuberay, local), or your
            own: ./NAME.yaml. Default: 'local'.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Status: how the cluster is.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def detect(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: Literal[True],
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: str = '',
    model: str | os.PathLike[str] = 'torchvision/fasterrcnn_resnet50_fpn_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
    nms: Literal['per-class', 'all-classes'] = 'per-class',
    tile: int | None = None,
    overlap: float = 0.2,
    tta: str = '',
    save_images: str | os.PathLike[str] | None = None,
) -> Forecast:
    """Find the objects in every image: boxes with classes and scores, one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.detect("photos", "boxes", conf=0.5, classes="person,bicycle")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        conf (float | None): The score above which an object is kept. Default: None (the model's own).
        iou (float | None): The overlap (IoU) above which only the best of two boxes is kept. Default:
            None (the model's own).
        max_det (int | None): The largest number of objects in an image or tile, best first. Default:
            None (the model's own).
        classes (str): The classes to look for, by name or id, with commas in between. Default: ''
            (all).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            detect` lists them; or hf/FOLDER, onnx/FILE. Default:
            'torchvision/fasterrcnn_resnet50_fpn_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        imgsz (int | None): The length in pixels to which the shorter side is resized. Default: None
            (the model's own).
        nms (Literal['per-class', 'all-classes']): The boxes that --iou compares: those of one class, or
            of all classes. Default: 'per-class'.
        tile (int | None): The side in pixels of the squares into which large images are cut. Default:
            None (whole images).
        overlap (float): The share of a tile's side that it has in common with the next tile. Default:
            0.2.
        tta (str): More looks at each image, mirrored or at other sizes, as in flip,0.8,1.2. Default:
            ''.
        save_images (str | os.PathLike[str] | None): A folder for a JPEG of each image with what was
            found drawn over it, kept like the results. Default: None.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def detect(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: bool = False,
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: str = '',
    model: str | os.PathLike[str] = 'torchvision/fasterrcnn_resnet50_fpn_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
    nms: Literal['per-class', 'all-classes'] = 'per-class',
    tile: int | None = None,
    overlap: float = 0.2,
    tta: str = '',
    save_images: str | os.PathLike[str] | None = None,
) -> Summary | Any:
    """Find the objects in every image: boxes with classes and scores, one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.detect("photos", "boxes", conf=0.5, classes="person,bicycle")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        conf (float | None): The score above which an object is kept. Default: None (the model's own).
        iou (float | None): The overlap (IoU) above which only the best of two boxes is kept. Default:
            None (the model's own).
        max_det (int | None): The largest number of objects in an image or tile, best first. Default:
            None (the model's own).
        classes (str): The classes to look for, by name or id, with commas in between. Default: ''
            (all).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            detect` lists them; or hf/FOLDER, onnx/FILE. Default:
            'torchvision/fasterrcnn_resnet50_fpn_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        imgsz (int | None): The length in pixels to which the shorter side is resized. Default: None
            (the model's own).
        nms (Literal['per-class', 'all-classes']): The boxes that --iou compares: those of one class, or
            of all classes. Default: 'per-class'.
        tile (int | None): The side in pixels of the squares into which large images are cut. Default:
            None (whole images).
        overlap (float): The share of a tile's side that it has in common with the next tile. Default:
            0.2.
        tta (str): More looks at each image, mirrored or at other sizes, as in flip,0.8,1.2. Default:
            ''.
        save_images (str | os.PathLike[str] | None): A folder for a JPEG of each image with what was
            found drawn over it, kept like the results. Default: None.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def doctor(
    *,
    json: bool = False,
) -> Checked:
    """Check this machine: versions, safety, ports, GPUs, decoders, room; each finding says what to do.

    Exit code 0: nothing is broken (there may be warnings); 1: something is.

    Args:
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Checked: what was found, the worst last.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def embed(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: Literal[True],
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    model: str | os.PathLike[str] = 'torchvision/mobilenet_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    layer: str = '',
    decode: Literal['auto', 'cpu', 'gpu'] = 'auto',
) -> Forecast:
    """Turn every image into a vector: one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.embed("photos", "vectors", model="torchvision/mobilenet_v2")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models` lists
            them; or thumbnail/N, hf/FOLDER, onnx/FILE. Default: 'torchvision/mobilenet_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        layer (str): The module whose pooled output is the vector. Default: '' (the last before the
            classifier).
        decode (Literal['auto', 'cpu', 'gpu']): What decodes JPEGs, which later runs keep: gpu decodes
            those that it decodes right, beside the processor; auto is cpu for a new output. Default:
            'auto'.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def embed(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: bool = False,
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    model: str | os.PathLike[str] = 'torchvision/mobilenet_v2',
    weights: str | os.PathLike[str] = 'pretrained',
    layer: str = '',
    decode: Literal['auto', 'cpu', 'gpu'] = 'auto',
) -> Summary | Any:
    """Turn every image into a vector: one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.embed("photos", "vectors", model="torchvision/mobilenet_v2")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models` lists
            them; or thumbnail/N, hf/FOLDER, onnx/FILE. Default: 'torchvision/mobilenet_v2'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        layer (str): The module whose pooled output is the vector. Default: '' (the last before the
            classifier).
        decode (Literal['auto', 'cpu', 'gpu']): What decodes JPEGs, which later runs keep: gpu decodes
            those that it decodes right, beside the processor; auto is cpu for a new output. Default:
            'auto'.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def eval(
    predictions: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    ignore: int | None = None,
    void: str | None = None,
    storage_option: list[str] | tuple[str, ...] = (),
    json: bool = False,
) -> Evaluation:
    """Compare predictions with the truth: AP and AR, mIoU, or top-1 and top-5, as JSON, a table and a page.

    PREDICTIONS is an output of `cvjobs detect`, `segment` or `classify`, its export, or what another tool wrote: COCO
    results, a table of labels or boxes, a folder of YOLO txt with scores or of PNG masks. TRUTH is COCO JSON, a folder of
    VOC XML, YOLO txt or PNG masks, OpenImages' CSV, a folder with one subfolder for each class, or a table of labels.

    For example `cvjobs.eval("boxes", "annotations.json")`.

    Args:
        predictions (str | os.PathLike[str]): The predictions: the -o folder of a job, or a file or
            folder of another tool.
        truth (str | os.PathLike[str]): The truth about the same images: a file or a folder.
        out (str | os.PathLike[str] | None): The folder for the numbers and the page. Default: None
            (eval/ in PREDICTIONS).
        labels (str | os.PathLike[str] | None): A file with the names of classes that are numbers, one
            on each line. Default: None.
        ignore (int | None): The class id of pixels that do not count, in a truth of masks. Default:
            None (255).
        void (str | None): The same, or none where all pixels count; asked for where 255 may be a class.
            Default: None (--ignore).
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Evaluation: what was found; its ``metrics`` are by name.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def export(
    results: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str,
    *,
    category_ids: Literal['coco', 'contiguous'] | None = None,
    overwrite: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    json: bool = False,
) -> Exported | Any:
    """Write results in the format of other programs, or the model of a training run as a file that they run.

    Results go as coco, csv, jsonl or yolo, from the newest snapshot, a few images at a time. The best model of a run goes
    as onnx, pt2 (torch.export) or safetensors, with its classes and preprocessing, checked against torch. A whole file is
    left, or none.

    For example `cvjobs.export("labels", "labels.csv", "csv")`, or `cvjobs export run --format onnx -o model.onnx`.

    Args:
        results (str | os.PathLike[str]): The results: the output folder of detect, segment, classify or
            embed; or the run: that of train.
        out (str | os.PathLike[str]): The file to write, or the folder for --format yolo.
        format (str): The format: coco, csv, jsonl or yolo; of a run onnx, pt2 or safetensors.
        category_ids (Literal['coco', 'contiguous'] | None): The numbers of the classes in --format
            coco: the model's own, or 1 to N. Default: None (coco).
        overwrite (bool): Replace a FILE of a run that is there already. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Exported | ExportedModel: what was written: of results ``Exported``, of a run ``ExportedModel``.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def index(
    embeddings: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    kind: Literal['auto', 'exact', 'ivf', 'pq'] = 'auto',
    target_recall: float = 0.95,
    rebuild: bool = False,
    rollback: bool = False,
    info: bool = False,
    max_memory: str | None = None,
    workers: int = 1,
    storage_option: list[str] | tuple[str, ...] = (),
    json: bool = False,
    address: str | None = None,
) -> IndexReport:
    """Index the vectors of an embed output for search by cosine, or bring the index up to date with them.

    The same command again adds new vectors, replaces changed ones and leaves out those that are gone.

    For example `cvjobs.index("vectors", out="index")`.

    Args:
        embeddings (str | os.PathLike[str]): The -o folder of `cvjobs embed`; an index for --info and
            --rollback.
        out (str | os.PathLike[str] | None): The index's folder; the same folder is brought up to date.
            Only --info and --rollback do without. Default: None.
        kind (Literal['auto', 'exact', 'ivf', 'pq']): The kind of index; auto is the most exact that
            fits into --max-memory and answers at once. Default: 'auto'.
        target_recall (float): The share of the true 10 nearest neighbours that a search must find.
            Default: 0.95.
        rebuild (bool): Build the index anew, even where an update would do. Default: False.
        rollback (bool): Return an index to the generation before its newest one. Default: False.
        info (bool): Say what an index holds, and change nothing. Default: False.
        max_memory (str | None): The memory of a search, as in 400MB or 2GiB. Default: None (half of
            what is free).
        workers (int): The number of Ray workers that add vectors to an index of kind ivf or pq.
            Default: 1.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).

    Returns:
        IndexReport: what was done.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def jobs(
    action: Literal['list', 'status', 'logs', 'wait', 'stop'] = 'list',
    id: str | None = None,
    *,
    address: str = 'http://127.0.0.1:8265',
    json: bool = False,
) -> list[ClusterJob] | Any:
    """List, follow and stop the jobs of a cluster: `cvjobs jobs list`, `status ID`, `logs ID`, `wait ID`, `stop ID`.

    `wait` shows the job's log from its beginning and ends with the job's own exit code. `stop` lets the job publish what it
    has done; after 20 s it is killed.

    Args:
        action (Literal['list', 'status', 'logs', 'wait', 'stop']): The action: list all jobs; or show,
            print the log of, follow or stop one job. Default: 'list'.
        id (str | None): The id of the job; only list needs none. Default: None.
        address (str): The cluster, as http://HOST:8265. Default: 'http://127.0.0.1:8265'.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        list[ClusterJob] | ClusterJob: the jobs of the cluster, or the one asked for.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def models(
    name: str | None = None,
    *,
    task: Literal['embed', 'classify', 'detect', 'segment', 'train', 'autoencoder'] = 'embed',
    json: bool = False,
) -> Families | Any:
    """List the models that a task can use, by family: parameters, input size and licence; or say all of one.

    For example `cvjobs.models(task="detect")`.

    Args:
        name (str | None): A model as it is typed after --model, to show what is known of it, or a
            family. Default: None (all).
        task (Literal['embed', 'classify', 'detect', 'segment', 'train', 'autoencoder']): The task that
            the models are for. Default: 'embed'.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Families | ModelCard: the models of the families that have any for the task, or what is known of
            one.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def query(
    index: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    k: int | None = None,
    min_score: float | None = None,
    exclude_self: bool = False,
    duplicates: Literal[True],
    out: str | os.PathLike[str] | None = None,
    html: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    accept_licence: list[str] | tuple[str, ...] = (),
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    json: bool = False,
    address: str | None = None,
) -> Duplicates:
    """Find the neighbours of images, or near-duplicates: rows in Parquet, a table, a page of thumbnails.

    SOURCE is an image, a folder, a list or an output of `cvjobs embed`; images are embedded with the index's own model.
    With -o the same command continues after a kill, and replaces the rows as a whole when it runs again.

    For example `cvjobs.query("index", "photo.jpg", k=5)`.

    Args:
        index (str | os.PathLike[str]): The output folder of `cvjobs index`.
        source (str | os.PathLike[str] | None): The queries: an image, a folder, a glob, a list, or an
            output of `cvjobs embed`. Only --duplicates does without. Default: None.
        k (int | None): The number of neighbours of each query. Default: None (10).
        min_score (float | None): The smallest cosine of a neighbour. Default: None (none, measured with
            --duplicates).
        exclude_self (bool): Leave out the query's own file, or the copies of a query from another
            folder. Default: False.
        duplicates (bool): Find groups of near-duplicates within the index itself. Default: False.
        out (str | os.PathLike[str] | None): The folder for the rows, as Parquet. Default: None.
        html (str | os.PathLike[str] | None): The file for a page of thumbnails. Default: None.
        weights (str | os.PathLike[str] | None): The file of the model's weights. Default: None (where
            the index had them).
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            embeds the queries, with -o. Default: None (this machine).

    Returns:
        Neighbours | Duplicates: the neighbours, or the groups of near-duplicates (``duplicates``), with
            their rows.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def query(
    index: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    k: int | None = None,
    min_score: float | None = None,
    exclude_self: bool = False,
    duplicates: bool = False,
    out: str | os.PathLike[str] | None = None,
    html: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    accept_licence: list[str] | tuple[str, ...] = (),
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    json: bool = False,
    address: str | None = None,
) -> Neighbours | Any:
    """Find the neighbours of images, or near-duplicates: rows in Parquet, a table, a page of thumbnails.

    SOURCE is an image, a folder, a list or an output of `cvjobs embed`; images are embedded with the index's own model.
    With -o the same command continues after a kill, and replaces the rows as a whole when it runs again.

    For example `cvjobs.query("index", "photo.jpg", k=5)`.

    Args:
        index (str | os.PathLike[str]): The output folder of `cvjobs index`.
        source (str | os.PathLike[str] | None): The queries: an image, a folder, a glob, a list, or an
            output of `cvjobs embed`. Only --duplicates does without. Default: None.
        k (int | None): The number of neighbours of each query. Default: None (10).
        min_score (float | None): The smallest cosine of a neighbour. Default: None (none, measured with
            --duplicates).
        exclude_self (bool): Leave out the query's own file, or the copies of a query from another
            folder. Default: False.
        duplicates (bool): Find groups of near-duplicates within the index itself. Default: False.
        out (str | os.PathLike[str] | None): The folder for the rows, as Parquet. Default: None.
        html (str | os.PathLike[str] | None): The file for a page of thumbnails. Default: None.
        weights (str | os.PathLike[str] | None): The file of the model's weights. Default: None (where
            the index had them).
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            embeds the queries, with -o. Default: None (this machine).

    Returns:
        Neighbours | Duplicates: the neighbours, or the groups of near-duplicates (``duplicates``), with
            their rows.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def run(
    pipeline: str | os.PathLike[str],
    *,
    notify_command: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> Outcome:
    """Run the commands of a pipeline file, one night after the other.

    The steps run in order; the first one that fails ends the night, and the same command continues from there. Every night
    leaves a page that links the pages of its steps and compares them with the night before.

    For example `cvjobs.run("nightly.yaml")`.

    Args:
        pipeline (str | os.PathLike[str]): The YAML file of steps; docs/nightly.md shows one.
        notify_command (str | None): The command that gets the outcome as JSON on stdin; it is split
            into words and sees no shell. Default: None (that of the file).
        dry_run (bool): Check everything, list what would run, and run nothing. Default: False.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Outcome: what became of it.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def schedule(
    pipeline: str | os.PathLike[str],
    cron: str,
    *,
    emit: Literal['cron', 'systemd', 'kubernetes'] = 'cron',
    out: str | os.PathLike[str] | None = None,
    image: str | None = None,
    mount: list[str] | tuple[str, ...] = (),
) -> Files:
    """Print a file that starts a pipeline at given times: a crontab line, a systemd timer or a Kubernetes CronJob.

    It installs nothing. Two nights of a pipeline never overlap.

    For example `cvjobs.schedule("nightly.yaml", "0 2 * * *", emit="systemd")`.

    Args:
        pipeline (str | os.PathLike[str]): The YAML file that `cvjobs run` takes.
        cron (str): The times: minute, hour, day, month and weekday, as in '0 2 * * *'; or @daily.
        emit (Literal['cron', 'systemd', 'kubernetes']): The program that starts the nights. Default:
            'cron'.
        out (str | os.PathLike[str] | None): The folder to write the files to. Default: None (they are
            printed).
        image (str | None): The container image for --emit kubernetes. Default: None (cvjobs:VERSION).
        mount (list[str] | tuple[str, ...]): A volume claim for --emit kubernetes, and its folder in the
            pod; repeat the option for more. Default: ().

    Returns:
        Files: the files, which are written where ``out`` names a folder.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def segment(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: Literal[True],
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: str = '',
    model: str | os.PathLike[str] = 'torchvision/deeplabv3_mobilenet_v3_large',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
    kind: Literal['auto', 'semantic', 'instance'] = 'auto',
    masks_dir: str | os.PathLike[str] | None = None,
    save_images: str | os.PathLike[str] | None = None,
) -> Forecast:
    """Find what every pixel of an image shows, or the outline of every object: one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.segment("photos", "maps", masks_dir="masks")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        conf (float | None): The score above which an object is kept. Default: None (the model's own).
        iou (float | None): The overlap (IoU) above which only the best of two boxes is kept. Default:
            None (the model's own).
        max_det (int | None): The largest number of objects in an image or tile, best first. Default:
            None (the model's own).
        classes (str): The classes to look for, by name or id, with commas in between. Default: ''
            (all).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            segment` lists them; or hf/FOLDER, onnx/FILE. Default:
            'torchvision/deeplabv3_mobilenet_v3_large'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        imgsz (int | None): The length in pixels to which the shorter side is resized. Default: None
            (the model's own).
        kind (Literal['auto', 'semantic', 'instance']): The kind of results, of a model that has
            several: a class for every pixel (semantic), objects (instance), or what the model is for
            (auto). Default: 'auto'.
        masks_dir (str | os.PathLike[str] | None): A folder for a PNG of masks for each image, kept like
            the results. Default: None.
        save_images (str | os.PathLike[str] | None): A folder for a JPEG of each image with what was
            found drawn over it, kept like the results. Default: None.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def segment(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    gpus_per_worker: float = 1.0,
    batch_size: int | None = None,
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    limit: int | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_deletions: bool = False,
    changed_by: Literal['time', 'content'] = 'time',
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    dry_run: bool = False,
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    address: str | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: str = '',
    model: str | os.PathLike[str] = 'torchvision/deeplabv3_mobilenet_v3_large',
    weights: str | os.PathLike[str] = 'pretrained',
    labels: str | os.PathLike[str] | None = None,
    imgsz: int | None = None,
    kind: Literal['auto', 'semantic', 'instance'] = 'auto',
    masks_dir: str | os.PathLike[str] | None = None,
    save_images: str | os.PathLike[str] | None = None,
) -> Summary | Any:
    """Find what every pixel of an image shows, or the outline of every object: one row per image, in Parquet.

    After a kill the same command continues; run again later, it computes only what is new or changed.

    For example `cvjobs.segment("photos", "maps", masks_dir="masks")`.

    Args:
        source (str | os.PathLike[str]): The images: a folder, a glob, one image, or a list (.txt, .lst,
            .csv, .tsv, .parquet).
        out (str | os.PathLike[str]): The output folder; the same folder continues a run and updates it.
        workers (int | None): The number of Ray workers. Default: None (this process, or one worker for
            each GPU; with --address one for each free GPU of the cluster, or for each machine of one
            without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        gpus_per_worker (float): The share of a GPU that each worker takes; with 0.5 two of a small
            model share one. Default: 1.0.
        batch_size (int | None): The number of images in a batch, halved when memory runs out. Default:
            None (found by trial).
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model, which later
            runs keep: auto is bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        limit (int | None): The largest number of images to compute; nothing is deleted. Default: None
            (all).
        retry_failed (bool): Compute every failed image again. Default: False.
        overwrite (bool): Compute every image again; the old results stay until the new ones are
            complete. Default: False.
        allow_deletions (bool): Drop the rows of images that are gone, even where that is over 20% of
            all rows. Default: False.
        changed_by (Literal['time', 'content']): The sign of a changed image: its size and time stamp,
            or its content (which reads touched files). Default: 'time'.
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        dry_run (bool): List the images, time a sample, predict time and size, and write nothing.
            Default: False.
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        conf (float | None): The score above which an object is kept. Default: None (the model's own).
        iou (float | None): The overlap (IoU) above which only the best of two boxes is kept. Default:
            None (the model's own).
        max_det (int | None): The largest number of objects in an image or tile, best first. Default:
            None (the model's own).
        classes (str): The classes to look for, by name or id, with commas in between. Default: ''
            (all).
        model (str | os.PathLike[str]): The model as family/name, or its name, as `cvjobs models --task
            segment` lists them; or hf/FOLDER, onnx/FILE. Default:
            'torchvision/deeplabv3_mobilenet_v3_large'.
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        labels (str | os.PathLike[str] | None): A file with the names of the classes, one on each line,
            for weights of your own. Default: None.
        imgsz (int | None): The length in pixels to which the shorter side is resized. Default: None
            (the model's own).
        kind (Literal['auto', 'semantic', 'instance']): The kind of results, of a model that has
            several: a class for every pixel (semantic), objects (instance), or what the model is for
            (auto). Default: 'auto'.
        masks_dir (str | os.PathLike[str] | None): A folder for a PNG of masks for each image, kept like
            the results. Default: None.
        save_images (str | os.PathLike[str] | None): A folder for a JPEG of each image with what was
            found drawn over it, kept like the results. Default: None.

    Returns:
        Summary | Forecast: what was done, or what would be (``dry_run``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    task: Literal['classify', 'autoencoder', 'segment', 'detect'] = 'classify',
    kind: Literal['semantic', 'instance'] | None = None,
    model: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | os.PathLike[str] = 'pretrained',
    init_head_from_labels: bool = False,
    dim: int = 128,
    recipe: Literal['finetune', 'from-scratch', 'quick', 'autoencoder', 'segment', 'segment-many', 'detect', 'detect-many'] | None = None,
    labels: str | os.PathLike[str] | None = None,
    void: str | None = None,
    batch_size: int | str | None = None,
    val: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    find_lr: Literal[True],
    overfit_check: bool = False,
    workers: int | str | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    compile: Literal['auto', 'on', 'off'] = 'auto',
    cache: str | os.PathLike[str] | None = None,
    cache_size: str | None = None,
    cache_side: int | None = None,
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    tensorboard: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    address: str | None = None,
    epochs: int | None = None,
    opt: Literal['sgd', 'rmsprop', 'adam', 'adamw', 'nadamw', 'lamb', 'lars', 'lion'] | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    freeze_until: str | None = None,
    clip_grad: float | None = None,
    clip_mode: Literal['norm', 'value', 'agc'] | None = None,
    accumulate: int | None = None,
    sched: Literal['constant', 'step', 'cosine', 'onecycle', 'cyclic', 'linear', 'plateau'] | None = None,
    warmup_epochs: float | None = None,
    decay_epochs: float | None = None,
    decay_rate: float | None = None,
    min_lr: float | None = None,
    patience: int | None = None,
    loss: Literal['auto', 'ce', 'focal', 'bce', 'mse', 'l1', 'ssim', 'dice', 'lovasz'] | None = None,
    box_loss: Literal['auto', 'smooth-l1', 'giou', 'diou', 'ciou'] | None = None,
    smoothing: float | None = None,
    focal_gamma: float | None = None,
    class_weights: Literal['none', 'inverse', 'effective'] | None = None,
    logit_adjustment: float | None = None,
    sampling: Literal['shuffle', 'balanced'] | None = None,
    drop_last: bool = False,
    scale: str | None = None,
    ratio: str | None = None,
    scale_jitter: str | None = None,
    hflip: float | None = None,
    vflip: float | None = None,
    color_jitter: float | None = None,
    aa: Literal['none', 'autoaugment', 'randaugment', 'trivialaugment', 'augmix'] | None = None,
    erasing: float | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
    mosaic: float | None = None,
    copy_paste: float | None = None,
    ema: float | None = None,
    swa: float | None = None,
    denoise: float | None = None,
    img_size: str | None = None,
    anchors: Literal['default', 'auto'] | None = None,
) -> LearningRate:
    """Train a classifier, detector, segmenter or autoencoder, on one machine or N workers; the run is then a model.

    DATA is a folder of class folders, alone or below train, val and test; or a CSV or Parquet file with the columns path
    and label (or labels), and perhaps split. A detector takes COCO's JSON, a folder of VOC's XML or of YOLO's txt files, or
    a table of boxes; a segmenter a folder with images and masks (PNGs of the same names), or polygons in COCO's JSON or
    YOLO's txt files. An autoencoder needs no labels.
    After a kill the same command continues.

    For example `cvjobs.train("photos", "run", model="torchvision/mobilenet_v2", epochs=10)`.

    Args:
        data (str | os.PathLike[str]): The images: a folder of class folders, a list (.csv, .tsv,
            .parquet), or any folder.
        out (str | os.PathLike[str]): The run's folder; the same folder continues the run.
        task (Literal['classify', 'autoencoder', 'segment', 'detect']): What the model learns: the
            classes of images, vectors from which it can rebuild them, the classes of pixels, or boxes
            around objects. Default: 'classify'.
        kind (Literal['semantic', 'instance'] | None): What a segmenter gives: a class for every pixel,
            or objects with masks. Default: None (by the model, or by the data: semantic for masks,
            instance for polygons).
        model (str | os.PathLike[str] | None): The model as family/name, or its name; `cvjobs models
            --task train` lists them. Default: None (torchvision/mobilenet_v2, small/autoencoder,
            torchvision/lraspp_mobilenet_v3_large, torchvision/fasterrcnn_resnet50_fpn or, for
            instances, torchvision/maskrcnn_resnet50_fpn).
        backbone (str | None): The classifier below the head of a detector or segmenter, which --weights
            are of then. Default: None (the model's own).
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        init_head_from_labels (bool): Start the classes that the weights know by name from the weights'
            own rows. Default: False.
        dim (int): The number of values in an autoencoder's vectors. Default: 128.
        recipe (Literal['finetune', 'from-scratch', 'quick', 'autoencoder', 'segment', 'segment-many',
            'detect', 'detect-many'] | None): The recipe: values for all settings, which the other
            options replace one by one. Default: None (finetune; from-scratch without weights;
            autoencoder, segment and detect for these tasks).
        labels (str | os.PathLike[str] | None): A file with the names of the classes in masks, one on
            each line. Default: None (a list near the masks).
        void (str | None): The value of pixels in masks that do not count, or none where all do.
            Default: None (255).
        batch_size (int | str | None): The number of images in a step, over all workers; auto is the
            power of two up to 256 that fits. Default: None (64, 8 to segment, 4 to detect, 16 by
            detect-many).
        val (float): The share of the images to validate with, where the data have no val split.
            Default: 0.2.
        seed (int): The seed of every random choice. Default: 0.
        overwrite (bool): Start again, and replace the run that the folder holds. Default: False.
        find_lr (bool): Try learning rates for 100 steps in this process, suggest one, and train
            nothing. Default: False.
        overfit_check (bool): Check before training that a copy of the model learns the first batch by
            heart. Default: False.
        workers (int | str | None): The number of Ray workers; MIN:MAX uses what the cluster has.
            Default: None (this process; with --address one for each free GPU of the cluster, or for
            each machine of one without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model: auto is
            bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        compile (Literal['auto', 'on', 'off']): Compile the model with torch.compile: auto does on a GPU
            where the training is long enough to gain. Default: 'auto'.
        cache (str | os.PathLike[str] | None): A folder of each machine that keeps the decoded images
            for other runs. Default: None.
        cache_size (str | None): The size of the images to train with that stay decoded, as in 200GB;
            the rest is decoded again in each epoch. Default: None (all).
        cache_side (int | None): The shorter side in pixels of the pictures that random crops are cut
            from. Default: None (1.5 times --img-size).
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        tensorboard (bool): Write TensorBoard's event files to RUN/tensorboard, too. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        epochs (int | None): The number of times that training sees every image. Default: None (30, 10
            in finetune, 100 in from-scratch, 3 in quick, 60 in segment, 20 in segment-many, 12 in
            detect-many).
        opt (Literal['sgd', 'rmsprop', 'adam', 'adamw', 'nadamw', 'lamb', 'lars', 'lion'] | None): The
            optimizer. Default: None (adamw).
        lr (float | None): The highest learning rate for steps of 64 images; it grows with --batch-size.
            Default: None (0.001, 0.004 in segment and segment-many, 0.008 in detect, 0.002 in
            detect-many).
        momentum (float | None): The momentum of an optimizer that has one. Default: None (0.9).
        weight_decay (float | None): The weight decay; biases and norms have none. Default: None (0.01,
            0.05 in finetune and from-scratch and quick).
        layer_decay (float | None): The learning rate of a layer as a share of the next layer's; 0 gives
            all the same. Default: None (0).
        freeze_until (str | None): The first layer that learns; the layers before it stay as they are.
            Default: None (all learn).
        clip_grad (float | None): The size above which gradients are clipped; 0 clips none. Default:
            None (1, 0 in from-scratch).
        clip_mode (Literal['norm', 'value', 'agc'] | None): What --clip-grad limits: the norm, each
            value, or the share of the weights' norm (agc). Default: None (norm).
        accumulate (int | None): The number of parts in which a step is computed, to save memory.
            Default: None (1).
        sched (Literal['constant', 'step', 'cosine', 'onecycle', 'cyclic', 'linear', 'plateau'] | None):
            The course of the learning rate. Default: None (cosine, linear in quick).
        warmup_epochs (float | None): The epochs in which the learning rate grows from 0; by default at
            most a tenth of all. Default: None (1, 5 in from-scratch, 0.2 in quick).
        decay_epochs (float | None): The epochs between decays of --sched step, without a better metric
            before one of plateau, or in half a cycle of cyclic. Default: None (2).
        decay_rate (float | None): The factor of the learning rate at each decay of --sched step and
            plateau. Default: None (0.1).
        min_lr (float | None): The lowest learning rate of any schedule, as a share of --lr. Default:
            None (0).
        patience (int | None): The epochs without a better metric that end the training early; 0 ends
            none. Default: None (0).
        loss (Literal['auto', 'ce', 'focal', 'bce', 'mse', 'l1', 'ssim', 'dice', 'lovasz'] | None): The
            loss: ce, focal and bce of classes, mse, l1 and ssim of an autoencoder, ce, focal, dice and
            lovasz of a segmenter; auto is ce, bce for several labels, mse for an autoencoder, of a
            detector its own. Default: None (auto).
        box_loss (Literal['auto', 'smooth-l1', 'giou', 'diou', 'ciou'] | None): The loss of a detector's
            boxes; auto is its own, of a Faster R-CNN smooth-l1. Default: None (auto).
        smoothing (float | None): The share of every label that is spread over all classes. Default:
            None (0.1, 0 in quick).
        focal_gamma (float | None): The gamma of --loss focal; more of it counts easy images less.
            Default: None (2).
        class_weights (Literal['none', 'inverse', 'effective'] | None): The weights of classes in the
            loss: none, or by the inverse or the effective number of their images, of their pixels to
            segment, of their objects to detect. Default: None.
        logit_adjustment (float | None): The factor of the log class frequencies that are added to the
            logits in training; 0 adds none. Default: None (0).
        sampling (Literal['shuffle', 'balanced'] | None): The order of images: shuffled, or balanced
            over the classes. Default: None (shuffle).
        drop_last (bool): Leave out the images at the end of an epoch that do not fill a step. Default:
            False.
        scale (str | None): The area of a random crop as a share of the image's. Default: None (1:1,
            0.5:1 in finetune, 0.25:1 in from-scratch).
        ratio (str | None): The width of a random crop as a share of its height. Default: None
            (0.75:1.33, 1:1 in quick and autoencoder).
        scale_jitter (str | None): The random scale of images with masks or boxes, of which 1 is how
            validation sees them. Default: None (0.5:2, or 0.6:1.4 to detect).
        hflip (float | None): The share of images mirrored left to right. Default: None (0.5).
        vflip (float | None): The share of images mirrored top to bottom. Default: None (0).
        color_jitter (float | None): The strength of random changes of brightness, contrast and colour.
            Default: None (0, 0.1 in finetune, 0.3 in segment, 0.2 in segment-many and detect).
        aa (Literal['none', 'autoaugment', 'randaugment', 'trivialaugment', 'augmix'] | None): The
            policy of automatic augmentation. Default: None (none, trivialaugment in from-scratch).
        erasing (float | None): The share of images in which a random box is blanked. Default: None (0,
            0.1 in from-scratch).
        mixup (float | None): The alpha of mixup, which blends two images; 0 blends none. Default: None
            (0, 0.2 in from-scratch).
        cutmix (float | None): The alpha of CutMix, which pastes a box of another image; 0 pastes none.
            Default: None (0).
        mosaic (float | None): The share of a detector's images that become mosaics of four; none in the
            last tenth of the epochs. Default: None (0).
        copy_paste (float | None): The share of images into which objects of another one are pasted,
            with masks. Default: None (0).
        ema (float | None): The decay of an exponential moving average of the weights; 0 keeps none.
            Default: None (0, 0.9998 in from-scratch).
        swa (float | None): The share of the epochs, the last ones, whose weights are averaged; 0
            averages none. Default: None (0).
        denoise (float | None): The deviation of the noise that an autoencoder learns to remove, as a
            share of the range of pixels. Default: None (0).
        img_size (str | None): The side of the images in pixels; two, as in 128:224, are those of the
            first and the last epoch. Default: None (the model's own).
        anchors (Literal['default', 'auto'] | None): The anchors of a detector: its own, or of --weights
            RUN that run's; auto fits as many to the boxes. Default: None (default).

    Returns:
        TrainingSummary | LearningRate: what came of it, or the rate that was found (``find_lr``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

@overload
def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    task: Literal['classify', 'autoencoder', 'segment', 'detect'] = 'classify',
    kind: Literal['semantic', 'instance'] | None = None,
    model: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | os.PathLike[str] = 'pretrained',
    init_head_from_labels: bool = False,
    dim: int = 128,
    recipe: Literal['finetune', 'from-scratch', 'quick', 'autoencoder', 'segment', 'segment-many', 'detect', 'detect-many'] | None = None,
    labels: str | os.PathLike[str] | None = None,
    void: str | None = None,
    batch_size: int | str | None = None,
    val: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
    find_lr: bool = False,
    overfit_check: bool = False,
    workers: int | str | None = None,
    device: Literal['auto', 'cuda', 'cpu'] = 'auto',
    precision: Literal['auto', 'fp32', 'bf16', 'fp16'] = 'auto',
    compile: Literal['auto', 'on', 'off'] = 'auto',
    cache: str | os.PathLike[str] | None = None,
    cache_size: str | None = None,
    cache_side: int | None = None,
    max_pixels: int = 80000000,
    bits: int | None = None,
    truncated: Literal['fail', 'use'] = 'fail',
    max_error_rate: float = 0.1,
    tensorboard: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    exclude: list[str] | tuple[str, ...] = (),
    accept_licence: list[str] | tuple[str, ...] = (),
    price: list[str] | tuple[str, ...] = (),
    max_cost: float | None = None,
    max_time: int | str | None = None,
    json: bool = False,
    address: str | None = None,
    epochs: int | None = None,
    opt: Literal['sgd', 'rmsprop', 'adam', 'adamw', 'nadamw', 'lamb', 'lars', 'lion'] | None = None,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    freeze_until: str | None = None,
    clip_grad: float | None = None,
    clip_mode: Literal['norm', 'value', 'agc'] | None = None,
    accumulate: int | None = None,
    sched: Literal['constant', 'step', 'cosine', 'onecycle', 'cyclic', 'linear', 'plateau'] | None = None,
    warmup_epochs: float | None = None,
    decay_epochs: float | None = None,
    decay_rate: float | None = None,
    min_lr: float | None = None,
    patience: int | None = None,
    loss: Literal['auto', 'ce', 'focal', 'bce', 'mse', 'l1', 'ssim', 'dice', 'lovasz'] | None = None,
    box_loss: Literal['auto', 'smooth-l1', 'giou', 'diou', 'ciou'] | None = None,
    smoothing: float | None = None,
    focal_gamma: float | None = None,
    class_weights: Literal['none', 'inverse', 'effective'] | None = None,
    logit_adjustment: float | None = None,
    sampling: Literal['shuffle', 'balanced'] | None = None,
    drop_last: bool = False,
    scale: str | None = None,
    ratio: str | None = None,
    scale_jitter: str | None = None,
    hflip: float | None = None,
    vflip: float | None = None,
    color_jitter: float | None = None,
    aa: Literal['none', 'autoaugment', 'randaugment', 'trivialaugment', 'augmix'] | None = None,
    erasing: float | None = None,
    mixup: float | None = None,
    cutmix: float | None = None,
    mosaic: float | None = None,
    copy_paste: float | None = None,
    ema: float | None = None,
    swa: float | None = None,
    denoise: float | None = None,
    img_size: str | None = None,
    anchors: Literal['default', 'auto'] | None = None,
) -> TrainingSummary | Any:
    """Train a classifier, detector, segmenter or autoencoder, on one machine or N workers; the run is then a model.

    DATA is a folder of class folders, alone or below train, val and test; or a CSV or Parquet file with the columns path
    and label (or labels), and perhaps split. A detector takes COCO's JSON, a folder of VOC's XML or of YOLO's txt files, or
    a table of boxes; a segmenter a folder with images and masks (PNGs of the same names), or polygons in COCO's JSON or
    YOLO's txt files. An autoencoder needs no labels.
    After a kill the same command continues.

    For example `cvjobs.train("photos", "run", model="torchvision/mobilenet_v2", epochs=10)`.

    Args:
        data (str | os.PathLike[str]): The images: a folder of class folders, a list (.csv, .tsv,
            .parquet), or any folder.
        out (str | os.PathLike[str]): The run's folder; the same folder continues the run.
        task (Literal['classify', 'autoencoder', 'segment', 'detect']): What the model learns: the
            classes of images, vectors from which it can rebuild them, the classes of pixels, or boxes
            around objects. Default: 'classify'.
        kind (Literal['semantic', 'instance'] | None): What a segmenter gives: a class for every pixel,
            or objects with masks. Default: None (by the model, or by the data: semantic for masks,
            instance for polygons).
        model (str | os.PathLike[str] | None): The model as family/name, or its name; `cvjobs models
            --task train` lists them. Default: None (torchvision/mobilenet_v2, small/autoencoder,
            torchvision/lraspp_mobilenet_v3_large, torchvision/fasterrcnn_resnet50_fpn or, for
            instances, torchvision/maskrcnn_resnet50_fpn).
        backbone (str | None): The classifier below the head of a detector or segmenter, which --weights
            are of then. Default: None (the model's own).
        weights (str | os.PathLike[str]): The weights of the model: published, random, or from a file or
            the folder of a training run. Default: 'pretrained'.
        init_head_from_labels (bool): Start the classes that the weights know by name from the weights'
            own rows. Default: False.
        dim (int): The number of values in an autoencoder's vectors. Default: 128.
        recipe (Literal['finetune', 'from-scratch', 'quick', 'autoencoder', 'segment', 'segment-many',
            'detect', 'detect-many'] | None): The recipe: values for all settings, which the other
            options replace one by one. Default: None (finetune; from-scratch without weights;
            autoencoder, segment and detect for these tasks).
        labels (str | os.PathLike[str] | None): A file with the names of the classes in masks, one on
            each line. Default: None (a list near the masks).
        void (str | None): The value of pixels in masks that do not count, or none where all do.
            Default: None (255).
        batch_size (int | str | None): The number of images in a step, over all workers; auto is the
            power of two up to 256 that fits. Default: None (64, 8 to segment, 4 to detect, 16 by
            detect-many).
        val (float): The share of the images to validate with, where the data have no val split.
            Default: 0.2.
        seed (int): The seed of every random choice. Default: 0.
        overwrite (bool): Start again, and replace the run that the folder holds. Default: False.
        find_lr (bool): Try learning rates for 100 steps in this process, suggest one, and train
            nothing. Default: False.
        overfit_check (bool): Check before training that a copy of the model learns the first batch by
            heart. Default: False.
        workers (int | str | None): The number of Ray workers; MIN:MAX uses what the cluster has.
            Default: None (this process; with --address one for each free GPU of the cluster, or for
            each machine of one without).
        device (Literal['auto', 'cuda', 'cpu']): What the workers compute on: auto is GPUs where this
            machine, or with --address the cluster, has any. Default: 'auto'.
        precision (Literal['auto', 'fp32', 'bf16', 'fp16']): The number format of the model: auto is
            bf16 on GPUs that compute in it, else fp32. Default: 'auto'.
        compile (Literal['auto', 'on', 'off']): Compile the model with torch.compile: auto does on a GPU
            where the training is long enough to gain. Default: 'auto'.
        cache (str | os.PathLike[str] | None): A folder of each machine that keeps the decoded images
            for other runs. Default: None.
        cache_size (str | None): The size of the images to train with that stay decoded, as in 200GB;
            the rest is decoded again in each epoch. Default: None (all).
        cache_side (int | None): The shorter side in pixels of the pictures that random crops are cut
            from. Default: None (1.5 times --img-size).
        max_pixels (int): The largest image in pixels; a larger one fails before it is decoded. Default:
            80000000.
        bits (int | None): The bits that images of 16 bits use, where no tag of theirs says so. Default:
            None (16).
        truncated (Literal['fail', 'use']): The treatment of a picture that is cut short: an error
            (fail), or what can be read of it, the rest gray. Default: 'fail'.
        max_error_rate (float): The largest share of images that may fail; above it the exit code is 3.
            Default: 0.1.
        tensorboard (bool): Write TensorBoard's event files to RUN/tensorboard, too. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        accept_licence (list[str] | tuple[str, ...]): A licence of weights that is accepted though it
            forbids some use, by the name that `cvjobs models` shows; repeat the option for more.
            Default: ().
        price (list[str] | tuple[str, ...]): The USD that an hour of a machine costs, of those that NAME
            is a label's value of or the host name, or else of every one; repeat the option for more.
            Default: ().
        max_cost (float | None): The USD that this command may cost; it ends before, and the same
            command continues. Default: None (any).
        max_time (int | str | None): The time that this command may take, as in 90s, 15m or 2h30m; it
            ends before, and the same command continues. Default: None (any).
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.
        address (str | None): A Ray cluster: http://HOST:8265 runs the whole command there, HOST:PORT
            and auto only its workers. Default: None (this machine).
        epochs (int | None): The number of times that training sees every image. Default: None (30, 10
            in finetune, 100 in from-scratch, 3 in quick, 60 in segment, 20 in segment-many, 12 in
            detect-many).
        opt (Literal['sgd', 'rmsprop', 'adam', 'adamw', 'nadamw', 'lamb', 'lars', 'lion'] | None): The
            optimizer. Default: None (adamw).
        lr (float | None): The highest learning rate for steps of 64 images; it grows with --batch-size.
            Default: None (0.001, 0.004 in segment and segment-many, 0.008 in detect, 0.002 in
            detect-many).
        momentum (float | None): The momentum of an optimizer that has one. Default: None (0.9).
        weight_decay (float | None): The weight decay; biases and norms have none. Default: None (0.01,
            0.05 in finetune and from-scratch and quick).
        layer_decay (float | None): The learning rate of a layer as a share of the next layer's; 0 gives
            all the same. Default: None (0).
        freeze_until (str | None): The first layer that learns; the layers before it stay as they are.
            Default: None (all learn).
        clip_grad (float | None): The size above which gradients are clipped; 0 clips none. Default:
            None (1, 0 in from-scratch).
        clip_mode (Literal['norm', 'value', 'agc'] | None): What --clip-grad limits: the norm, each
            value, or the share of the weights' norm (agc). Default: None (norm).
        accumulate (int | None): The number of parts in which a step is computed, to save memory.
            Default: None (1).
        sched (Literal['constant', 'step', 'cosine', 'onecycle', 'cyclic', 'linear', 'plateau'] | None):
            The course of the learning rate. Default: None (cosine, linear in quick).
        warmup_epochs (float | None): The epochs in which the learning rate grows from 0; by default at
            most a tenth of all. Default: None (1, 5 in from-scratch, 0.2 in quick).
        decay_epochs (float | None): The epochs between decays of --sched step, without a better metric
            before one of plateau, or in half a cycle of cyclic. Default: None (2).
        decay_rate (float | None): The factor of the learning rate at each decay of --sched step and
            plateau. Default: None (0.1).
        min_lr (float | None): The lowest learning rate of any schedule, as a share of --lr. Default:
            None (0).
        patience (int | None): The epochs without a better metric that end the training early; 0 ends
            none. Default: None (0).
        loss (Literal['auto', 'ce', 'focal', 'bce', 'mse', 'l1', 'ssim', 'dice', 'lovasz'] | None): The
            loss: ce, focal and bce of classes, mse, l1 and ssim of an autoencoder, ce, focal, dice and
            lovasz of a segmenter; auto is ce, bce for several labels, mse for an autoencoder, of a
            detector its own. Default: None (auto).
        box_loss (Literal['auto', 'smooth-l1', 'giou', 'diou', 'ciou'] | None): The loss of a detector's
            boxes; auto is its own, of a Faster R-CNN smooth-l1. Default: None (auto).
        smoothing (float | None): The share of every label that is spread over all classes. Default:
            None (0.1, 0 in quick).
        focal_gamma (float | None): The gamma of --loss focal; more of it counts easy images less.
            Default: None (2).
        class_weights (Literal['none', 'inverse', 'effective'] | None): The weights of classes in the
            loss: none, or by the inverse or the effective number of their images, of their pixels to
            segment, of their objects to detect. Default: None.
        logit_adjustment (float | None): The factor of the log class frequencies that are added to the
            logits in training; 0 adds none. Default: None (0).
        sampling (Literal['shuffle', 'balanced'] | None): The order of images: shuffled, or balanced
            over the classes. Default: None (shuffle).
        drop_last (bool): Leave out the images at the end of an epoch that do not fill a step. Default:
            False.
        scale (str | None): The area of a random crop as a share of the image's. Default: None (1:1,
            0.5:1 in finetune, 0.25:1 in from-scratch).
        ratio (str | None): The width of a random crop as a share of its height. Default: None
            (0.75:1.33, 1:1 in quick and autoencoder).
        scale_jitter (str | None): The random scale of images with masks or boxes, of which 1 is how
            validation sees them. Default: None (0.5:2, or 0.6:1.4 to detect).
        hflip (float | None): The share of images mirrored left to right. Default: None (0.5).
        vflip (float | None): The share of images mirrored top to bottom. Default: None (0).
        color_jitter (float | None): The strength of random changes of brightness, contrast and colour.
            Default: None (0, 0.1 in finetune, 0.3 in segment, 0.2 in segment-many and detect).
        aa (Literal['none', 'autoaugment', 'randaugment', 'trivialaugment', 'augmix'] | None): The
            policy of automatic augmentation. Default: None (none, trivialaugment in from-scratch).
        erasing (float | None): The share of images in which a random box is blanked. Default: None (0,
            0.1 in from-scratch).
        mixup (float | None): The alpha of mixup, which blends two images; 0 blends none. Default: None
            (0, 0.2 in from-scratch).
        cutmix (float | None): The alpha of CutMix, which pastes a box of another image; 0 pastes none.
            Default: None (0).
        mosaic (float | None): The share of a detector's images that become mosaics of four; none in the
            last tenth of the epochs. Default: None (0).
        copy_paste (float | None): The share of images into which objects of another one are pasted,
            with masks. Default: None (0).
        ema (float | None): The decay of an exponential moving average of the weights; 0 keeps none.
            Default: None (0, 0.9998 in from-scratch).
        swa (float | None): The share of the epochs, the last ones, whose weights are averaged; 0
            averages none. Default: None (0).
        denoise (float | None): The deviation of the noise that an autoencoder learns to remove, as a
            share of the range of pixels. Default: None (0).
        img_size (str | None): The side of the images in pixels; two, as in 128:224, are those of the
            first and the last epoch. Default: None (the model's own).
        anchors (Literal['default', 'auto'] | None): The anchors of a detector: its own, or of --weights
            RUN that run's; auto fits as many to the boxes. Default: None (default).

    Returns:
        TrainingSummary | LearningRate: what came of it, or the rate that was found (``find_lr``).

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def unlock(
    out: str | os.PathLike[str],
    *,
    yes: bool = False,
    storage_option: list[str] | tuple[str, ...] = (),
    json: bool = False,
) -> Unlocked:
    """Free an output, an index, a training run or a night whose holder is gone, and say who held it.

    Rarely needed: the next command takes over by itself where the holder is dead, or silent for a minute. A command that
    does run notices that its output was taken, and ends with exit code 5.

    For example `cvjobs.unlock("vectors")`.

    Args:
        out (str | os.PathLike[str]): The folder or URL that another command's -o named.
        yes (bool): Free it without a question. Default: False.
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        Unlocked: who held it; raises WrongUse where something holds it and ``yes`` is not given.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

def verify(
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    repair: bool = False,
    exclude: list[str] | tuple[str, ...] = (),
    storage_option: list[str] | tuple[str, ...] = (),
    confine: bool = False,
    json: bool = False,
) -> VerifyReport | Any:
    """Check an output, an index, a training run or nights: every file as it was written, every image exactly once.

    Exit code 0: exact; 4: images are missing; 1: another problem, named with what to do. --repair first brings back a
    snapshot that is damaged: from its copy, or else from the files of results and errors, of which no row is dropped.

    For example `cvjobs.verify("vectors", source="photos")`.

    Args:
        out (str | os.PathLike[str]): The folder that a command left.
        source (str | os.PathLike[str] | None): The images to list and compare with. Default: None (the
            list of the last run).
        repair (bool): Bring back a damaged snapshot first. Default: False.
        exclude (list[str] | tuple[str, ...]): A glob of names, or with a / of paths relative to the
            source, whose files and folders are left out; repeat the option for more. Default: ().
        storage_option (list[str] | tuple[str, ...]): A setting for s3://, gs:// and az://, such as
            endpoint=http://HOST:PORT, region=NAME or skip_signature=true; repeat the option for more.
            Default: ().
        confine (bool): Refuse what a list from others may not name: files and objects that are not
            below its own folder or bucket, links included, and web addresses that are not public.
            Default: False.
        json (bool): Print the result as JSON, and nothing else, on stdout. It is for the command line:
            a function prints nothing. Default: False.

    Returns:
        VerifyReport | FolderReport: what was found.

    Raises:
        WrongUse: An option, a name or a source is wrong; nothing was changed.
        JobFailed: The job could not go on; the same call continues it.
        CvjobsError: The base of these and of the others, each one sentence that says what to do.
    """

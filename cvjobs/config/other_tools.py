"""What people type who come from other tools, and what is meant here; for sentences: nothing here is accepted.

A key is an option or a command without its dashes; ``wrong_words`` makes the sentences.
"""

from __future__ import annotations

# The options here that may be meant, in the order in which they are looked for; what follows a space is a value.
OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("output", "output-dir", "output-folder", "output-file", "out-dir", "outdir", "save-dir", "dest", "dst", "to"),
        ("out",),
    ),
    **dict.fromkeys(("project", "name", "run-dir", "log-dir", "logdir"), ("out",)),
    **dict.fromkeys(("batch", "bs", "b", "batchsize", "train-batch-size", "batch-per-gpu"), ("batch-size",)),
    **dict.fromkeys(
        (
            "conf",
            "confidence",
            "conf-thres",
            "conf-threshold",
            "conf-thresh",
            "score-thr",
            "score-threshold",
            "min-conf",
        ),
        ("conf", "min-score"),
    ),
    **dict.fromkeys(
        ("threshold", "thresh", "thr", "min-confidence", "similarity", "min-score", "score"), ("conf", "min-score")
    ),
    **dict.fromkeys(("iou-thres", "iou-threshold", "iou-thresh", "nms-thres", "nms-threshold"), ("iou",)),
    **dict.fromkeys(("max-dets", "max-detections", "max-objects", "detections-per-img"), ("max-det",)),
    **dict.fromkeys(("class", "filter-classes", "only"), ("classes",)),
    **dict.fromkeys(("names", "class-names", "classnames", "categories", "class-file"), ("labels",)),
    **dict.fromkeys(
        ("size", "image-size", "imagesize", "input-size", "resolution", "resize", "img", "imsize", "crop-size"),
        ("imgsz", "img-size", "tile"),
    ),
    **dict.fromkeys(("lr0", "learning-rate", "learning-rate-init", "base-lr"), ("lr",)),
    **dict.fromkeys(("wd", "decay", "l2", "weight-decay-rate"), ("weight-decay",)),
    **dict.fromkeys(("optimizer", "optim", "optimiser"), ("opt",)),
    **dict.fromkeys(("scheduler", "lr-scheduler", "lr-schedule", "schedule"), ("sched",)),
    **dict.fromkeys(("warmup", "warmup-steps"), ("warmup-epochs",)),
    **dict.fromkeys(("epoch", "num-epochs", "n-epochs", "max-epochs", "num-train-epochs"), ("epochs",)),
    **dict.fromkeys(("aug", "augment", "augmentation", "augmentations", "auto-augment", "randaugment"), ("aa",)),
    **dict.fromkeys(("label-smoothing",), ("smoothing",)),
    **dict.fromkeys(("early-stopping", "early-stop"), ("patience",)),
    **dict.fromkeys(("ema-decay", "model-ema"), ("ema",)),
    **dict.fromkeys(("grad-accum", "gradient-accumulation-steps", "accum"), ("accumulate",)),
    **dict.fromkeys(("val-split", "validation-split", "val-size", "test-size"), ("val",)),
    **dict.fromkeys(("freeze", "freeze-backbone"), ("freeze-until",)),
    **dict.fromkeys(("arch", "architecture", "backbone", "model-name", "network", "m"), ("model",)),
    **dict.fromkeys(("checkpoint", "ckpt", "pretrained-weights", "load", "w"), ("weights",)),
    **dict.fromkeys(("pretrained",), ("weights pretrained",)),
    **dict.fromkeys(("half", "fp16"), ("precision fp16",)),
    **dict.fromkeys(("amp", "bf16", "mixed-precision", "dtype"), ("precision bf16",)),
    **dict.fromkeys(("fp32", "full-precision"), ("precision fp32",)),
    **dict.fromkeys(
        ("num-workers", "n-workers", "jobs", "j", "processes", "num-gpus", "n-gpus", "gpus", "nproc", "num-processes"),
        ("workers",),
    ),
    **dict.fromkeys(("gpu", "cuda", "use-gpu", "accelerator"), ("device cuda",)),
    **dict.fromkeys(("cpu", "no-cuda"), ("device cpu",)),
    **dict.fromkeys(
        ("topk", "top-k", "num-neighbors", "neighbors", "neighbours", "num-results", "top", "n"),
        ("top", "k", "max-det"),
    ),
    **dict.fromkeys(("k",), ("top",)),
    **dict.fromkeys(("masks", "save-masks", "mask-dir", "save-mask", "masks-out"), ("masks-dir",)),
    **dict.fromkeys(
        ("save", "save-img", "visualize", "vis", "plot", "draw", "show", "annotate"), ("save-images", "html")
    ),
    **dict.fromkeys(("save-txt", "save-csv", "save-json"), ("format",)),
    **dict.fromkeys(("type", "export-format", "fmt", "f", "include"), ("format",)),
    **dict.fromkeys(("max-images", "num-images", "max-samples", "first", "sample", "samples"), ("limit",)),
    **dict.fromkeys(("ignore-pattern", "skip", "exclude-dir", "ignore"), ("exclude",)),
    **dict.fromkeys(("force", "exist-ok", "replace", "recompute", "no-cache", "clobber"), ("overwrite", "rebuild")),
    **dict.fromkeys(("dryrun", "n-dry-run", "plan", "whatif"), ("dry-run",)),
    **dict.fromkeys(("report", "page", "web"), ("html",)),
    **dict.fromkeys(("dedup", "dedupe", "near-duplicates", "duplicate"), ("duplicates",)),
    **dict.fromkeys(("features", "feature-layer"), ("layer",)),
    **dict.fromkeys(("random-seed", "random-state", "s"), ("seed",)),
    **dict.fromkeys(("ray-address", "cluster", "master", "host"), ("address",)),
    **dict.fromkeys(("ground-truth", "gt", "annotations"), ("labels",)),
    **dict.fromkeys(("augment-test", "test-time-augmentation"), ("tta",)),
    **dict.fromkeys(("slice", "slice-size", "tiles", "tile-size"), ("tile",)),
    **dict.fromkeys(("c",), ("config",)),
    **dict.fromkeys(("y", "assume-yes"), ("yes",)),
}

# What there is no option for, as the rest of a sentence.
ADVICE: dict[str, str] = {
    **dict.fromkeys(
        ("device", "gpu", "cuda", "cpu", "gpu-id", "devices", "no-cuda", "use-gpu", "accelerator"),
        "a GPU is used where there is one, and `cvjobs doctor` shows it; CUDA_VISIBLE_DEVICES in the environment "
        "chooses GPUs, and empty means the CPU",
    ),
    **dict.fromkeys(
        ("input", "i", "input-dir", "images", "image", "img-dir", "image-dir", "path", "folder", "dir", "src", "files"),
        "the images come right after the command, as in 'cvjobs {command} photos'",
    ),
    **dict.fromkeys(
        ("source", "data", "data-path", "data-dir", "dataset"), "it comes right after the command, without a name"
    ),
    **dict.fromkeys(
        ("resume", "continue", "resume-from", "restart", "skip-existing"),
        "the same command continues what it began, so leave it out",
    ),
    **dict.fromkeys(
        ("verbose", "v", "debug", "log-level", "quiet", "q", "silent", "progress"),
        "progress is on stderr, so 2>/dev/null hides it, and the whole account is in the -o folder",
    ),
    **dict.fromkeys(
        ("imgsz", "img-size", "size", "image-size", "input-size", "resize", "crop-size", "resolution"),
        "images are brought to the size that the model was made for, so leave it out",
    ),
    **dict.fromkeys(("recursive", "r"), "folders are searched with all that is below them, so leave it out"),
    **dict.fromkeys(("metric", "distance"), "the score is always the cosine of two vectors, so leave it out"),
    **dict.fromkeys(("normalize", "l2-normalize"), "what compares vectors normalises them, so leave it out"),
    **dict.fromkeys(
        ("stream", "async", "prefetch", "pin-memory"),
        "reading, decoding and computing overlap by themselves, so leave it out",
    ),
}

# The commands here that may be meant, as a user types them after ``cvjobs``.
COMMANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("predict", "infer", "inference", "label", "tag", "caption"), ("classify", "detect", "segment")),
    **dict.fromkeys(
        ("search", "find", "similar", "similarity", "neighbors", "neighbours", "knn", "retrieve"), ("query",)
    ),
    **dict.fromkeys(("dedup", "dedupe", "duplicates", "deduplicate"), ("query INDEX --duplicates",)),
    **dict.fromkeys(("val", "validate", "evaluate", "test", "score", "metrics"), ("eval",)),
    **dict.fromkeys(("extract", "features", "encode", "embeddings", "embedding", "vectorize"), ("embed",)),
    **dict.fromkeys(("fit", "finetune", "fine-tune", "learn"), ("train",)),
    **dict.fromkeys(("convert", "csv", "coco"), ("export",)),
    **dict.fromkeys(("track", "boxes", "count"), ("detect",)),
    **dict.fromkeys(("mask", "masks", "segmentation"), ("segment",)),
    **dict.fromkeys(("classification", "recognize", "categorize"), ("classify",)),
    **dict.fromkeys(("detection", "yolo"), ("detect",)),
    **dict.fromkeys(("night", "nightly", "pipeline", "workflow"), ("run PIPELINE",)),
    **dict.fromkeys(("cron", "timer"), ("schedule PIPELINE",)),
    **dict.fromkeys(("info", "check", "env", "system", "diagnose"), ("doctor", "verify OUT")),
    **dict.fromkeys(("list", "ls", "ps", "status"), ("jobs list", "models")),
    **dict.fromkeys(("stop", "cancel", "kill", "logs"), ("jobs",)),
    **dict.fromkeys(("version",), ("--version",)),
    **dict.fromkeys(("help", "man"), ("COMMAND --help",)),
}

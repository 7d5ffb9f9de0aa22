"""Settings of published models of transformers, for weights that are made up: D-FINE-N and SegFormer-B0.

They are those of the libraries' own scripts of conversion; a run fetches nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

D_FINE_N: dict[str, Any] = {
    "backbone_config": {
        "model_type": "hgnet_v2",
        "hidden_sizes": [128, 256, 512, 1024],
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 64, 256, 512],
        "stage_mid_channels": [16, 32, 64, 128],
        "stage_out_channels": [64, 256, 512, 1024],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_downsample": [False, True, True, True],
        "stage_light_block": [False, False, True, True],
        "stage_kernel_size": [3, 3, 5, 5],
        "stage_numb_of_layers": [3, 3, 3, 3],
        "out_indices": [3, 4],
        "use_learnable_affine_block": True,
    },
    "num_feature_levels": 2,
    "encoder_ffn_dim": 512,
    "encode_proj_layers": [1],
    "d_model": 128,
    "encoder_hidden_dim": 128,
    "decoder_ffn_dim": 512,
    "encoder_in_channels": [512, 1024],
    "decoder_n_points": [6, 6],
    "decoder_in_channels": [128, 128],
    "feat_strides": [16, 32],
    "depth_mult": 0.5,
    "decoder_layers": 3,
    "hidden_expansion": 0.34,
    "num_labels": 80,
}
# SegFormer's own defaults are B0; ADE20K has 150 classes.
SEGFORMER_B0: dict[str, Any] = {"num_labels": 19}


def saved(name: str, cache: Path) -> Path:
    """Return the folder of a model with its processor, ``d-fine-n`` or ``segformer-b0``, made where it is missing."""
    import transformers

    folder = cache / name
    if not (folder / "preprocessor_config.json").exists():
        torch.manual_seed(0)
        if name == "d-fine-n":
            model = transformers.DFineForObjectDetection(transformers.DFineConfig(**D_FINE_N))
            processor = transformers.RTDetrImageProcessor()
        else:
            model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**SEGFORMER_B0))
            processor = transformers.SegformerImageProcessor(size={"height": 512, "width": 512})
        model.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder

"""Repositories of the Hugging Face hub: found in the cache by any of their names, and nothing of them is run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment
from reference import refused
from safetensors.torch import save_file

from cvjobs.common.errors import WrongUse
from cvjobs.networks import known_models, licences, registry
from cvjobs.networks.catalogue import catalogue
from cvjobs.networks.families import hf
from cvjobs.networks.hf import loading, short_names
from cvjobs.networks.hf.repository import CONFIG, MODEL, PROCESSOR, opened

huggingface_hub = pytest.importorskip("huggingface_hub")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

VIT = "google/vit-base-patch16-224"
SHORT = "vit-base-patch16-224"
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NOWHERE = "http://127.0.0.1:9"  # refuses at once
CODE = "raise SystemExit('the code of a repository ran')"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier as the library saves it."""
    folder = tmp_path_factory.mktemp("saved")
    with loading.quiet(), torch.random.fork_rng():
        config = transformers.ViTConfig(**WIDTHS, image_size=32, patch_size=16, id2label={0: "cat", 1: "dog"})
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in ("file_download", "constants"):
        monkeypatch.setattr(getattr(huggingface_hub, module), "ENDPOINT", NOWHERE, raising=False)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOWHERE + "/{repo_id}/resolve/{revision}/{filename}"
    )
    return tmp_path / "hub"


def cached(cache: Path, folder: Path, name: str = VIT, revision: str = "main") -> Path:
    """Put files into the cache as the hub's library keeps them: a snapshot by its commit, and what names it."""
    commit = (revision.encode().hex() * 40)[:40]
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    return Path(shutil.copytree(folder, place / "snapshots" / commit))


def changed(folder: Path, name: str, **more: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def test_every_name_of_a_cached_repository_is_found_without_a_network(cache: Path, folder: Path) -> None:
    cached(cache, folder)
    whole = registry.embedder(f"hf/{folder}")
    by_hub, by_short = registry.embedder(f"hf/{VIT}"), registry.embedder(f"hf/{SHORT}")
    assert (by_hub.name, by_short.name) == (f"hf/{VIT}", f"hf/{SHORT}")
    assert {model.facts["weights"] for model in (by_hub, by_short)} == {"main"}
    for identity in ("weights_sha256", "settings_sha256"):
        assert len({model.facts[identity] for model in (whole, by_hub, by_short)}) == 1
    assert registry.classifier(f"hf/{SHORT}").labels == ("cat", "dog")
    assert registry.settled(f"hf/{folder.parent}/./model") == f"hf/{folder}"


def test_a_revision_is_another_model(cache: Path, folder: Path) -> None:
    cached(cache, folder)
    changed(folder, PROCESSOR, image_mean=[0.1, 0.2, 0.3])
    cached(cache, folder, revision="refs/pr/8")
    first, second = (registry.embedder(f"hf/{SHORT}{of}") for of in ("", "@refs/pr/8"))
    assert second.transform.mean == (0.1, 0.2, 0.3)
    assert first.facts["weights_sha256"] == second.facts["weights_sha256"]
    assert first.facts["settings_sha256"] != second.facts["settings_sha256"]
    assert (first.facts["weights"], second.facts["weights"]) == ("main", "refs/pr/8")


def test_weights_in_several_files_are_those_in_one(folder: Path, tmp_path: Path) -> None:
    with loading.quiet():
        model = transformers.ViTForImageClassification.from_pretrained(folder)
        shutil.copytree(folder, tmp_path / "several", ignore=shutil.ignore_patterns(MODEL))
        model.save_pretrained(tmp_path / "several", max_shard_size="4KB")
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 2
    one, several = registry.classifier(f"hf/{folder}"), registry.classifier(f"hf/{tmp_path / 'several'}")
    for name, tensor in one.module.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, several.module.state_dict()[name])  # type: ignore[attr-defined]
    assert one.facts["weights_sha256"] != several.facts["weights_sha256"]
    for named in ("[]", "{}", '{"a": "../model/model.safetensors"}', '{"a": "pytorch_model.bin"}'):
        (tmp_path / "several" / f"{MODEL}.index.json").write_text(f'{{"weight_map": {named}}}')
        assert "names no files of weights beside it" in refused(f"hf/{tmp_path / 'several'}")


def test_a_pickle_alone_is_refused(folder: Path) -> None:
    (folder / MODEL).rename(folder / "pytorch_model.bin")
    assert f"has no {MODEL}: convert its weights to safetensors" in refused(f"hf/{folder}")


def test_code_of_a_repository_is_never_run(folder: Path) -> None:
    for name in ("modeling.py", "processing.py"):
        (folder / name).write_text(CODE)
    changed(folder, CONFIG, auto_map={"AutoModel": "modeling.Own", "AutoConfig": "modeling.OwnConfig"})
    changed(folder, PROCESSOR, auto_map={"AutoImageProcessor": "processing.Own"})
    assert registry.classifier(f"hf/{folder}").labels == ("cat", "dog")
    changed(folder, CONFIG, model_type="own")
    assert "is of the kind 'own', which is not for this command" in refused(f"hf/{folder}")


@pytest.mark.parametrize("broken", ["{", "[]", '"text"', "[" * 100_000])
@pytest.mark.parametrize("name", [CONFIG, PROCESSOR])
def test_settings_that_are_none_are_one_sentence(folder: Path, name: str, broken: str) -> None:
    (folder / name).write_text(broken)
    assert f"{folder / name} holds no JSON object" in refused(f"hf/{folder}")


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        (CONFIG, {"hidden_size": "wide"}, "make no model"),
        (CONFIG, {"num_attention_heads": 3}, "lack or have another size of"),
        (CONFIG, {"patch_size": 0}, "make no model"),
        (CONFIG, {"num_hidden_layers": 10_000_000}, "10,000,000 layers"),
        (CONFIG, {"num_hidden_layers": float("inf")}, "make no model"),
        (CONFIG, {"image_size": 64}, "lack or have another size of"),
        (PROCESSOR, {"size": {"height": 48, "width": 48}}, "make no model"),
        (PROCESSOR, {"image_processor_type": "OwnImageProcessor"}, "makes no image processor"),
        (PROCESSOR, {"image_std": [0.0, 0.5, 0.5]}, "prepared in a way that cvjobs does not offer"),
        (PROCESSOR, {"resample": 0}, "prepared in a way that cvjobs does not offer"),
        (PROCESSOR, {"do_resize": False}, "prepared in a way that cvjobs does not offer"),
        (PROCESSOR, {"size": {"shortest_edge": 32}}, "prepared in a way that cvjobs does not offer"),
        (PROCESSOR, {"size": {"shortest_edge": 32, "longest_edge": 64}}, "prepared in a way that"),
    ],
)
def test_settings_without_sense_are_one_sentence(folder: Path, name: str, more: dict[str, Any], said: str) -> None:
    changed(folder, name, **more)
    assert said in refused(f"hf/{folder}")


def test_what_is_no_model_of_vectors_is_one_sentence(folder: Path) -> None:
    changed(folder, CONFIG, model_type="siglip2")
    assert "is a NaFlex model" in refused(f"hf/{folder}")
    changed(folder, CONFIG, model_type="d_fine")
    assert "is of the kind 'd_fine', which is not for this command" in refused(f"hf/{folder}")
    assert "hf/vit-base-patch16-22 (nearest: vit-base-patch16-224," in refused("hf/vit-base-patch16-22")
    assert "has no config.json" in refused(f"hf/{folder.parent}")


def test_a_model_without_a_classifier_does_not_classify(folder: Path) -> None:
    with loading.quiet():
        transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    assert registry.embedder(f"hf/{folder}").dim == WIDTHS["hidden_size"]
    with pytest.raises(Exception, match=r"lack or have another size of classifier\.bias"):
        registry.classifier(f"hf/{folder}")


def test_weights_of_ones_own_and_random_ones(folder: Path, tmp_path: Path) -> None:
    model = registry.classifier(f"hf/{folder}")
    save_file(model.module.model.state_dict(), tmp_path / "own.safetensors")  # type: ignore[attr-defined]
    own = registry.classifier(f"hf/{folder}", weights=str(tmp_path / "own.safetensors"), labels=["a", "b"])
    assert own.labels == ("a", "b")
    for name, tensor in model.module.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, own.module.state_dict()[name])  # type: ignore[attr-defined]
    first, again = (registry.embedder(f"hf/{folder}", weights="random") for _ in range(2))
    for name, tensor in first.module.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, again.module.state_dict()[name])  # type: ignore[attr-defined]
    assert first.facts["weights"] == "random"


def test_without_a_network_it_is_said_at_once_what_to_do(cache: Path, folder: Path) -> None:
    begun = time.monotonic()
    said = refused(f"hf/{VIT}")
    assert time.monotonic() - begun < 10
    absent = f"there is no such folder, config.json of the repository {VIT} is not in {cache}, and "
    assert said.startswith(f"No weights for hf/{VIT}: {absent}")
    assert said.endswith("fetch the repository where there is a network, then name its folder as hf/FOLDER.")
    (cached(cache, folder) / MODEL).unlink()
    assert f"{MODEL} of the repository {VIT} is not in" in refused(f"hf/{VIT}")


CARDS = {
    "---\nlicense: apache-2.0\n---\n# A model": "Apache-2.0",
    "---\nlicense: other\nlicense_name: dinov3-license\ntags: [vision]\n---": "dinov3-license",
    "---\nlicense: other\n---": "unknown",
    "---\nlicense: cc-by-nc-4.0\r\n---": "CC-BY-NC-4.0",
    "---\nlicense: [mit, apache-2.0]\n---": "unknown",
    "---\nlicense: {{\n---": "unknown",
    "license: mit": "unknown",
    "---\nlicense: mit": "unknown",
    "": "unknown",
}


@pytest.mark.parametrize(("card", "found"), CARDS.items())
def test_the_licence_is_that_of_the_card(cache: Path, folder: Path, card: str, found: str) -> None:
    place = cached(cache, folder, "owner/name")
    (place / "README.md").write_text(card)
    assert known_models.licence("hf", "owner/name").weights == found
    assert known_models.licence("hf", str(folder)).weights == licences.YOURS


@pytest.mark.usefixtures("cache")
def test_the_licence_of_a_known_model_is_the_catalogue_s() -> None:
    assert known_models.licence("hf", "facebook/convnextv2-tiny-1k-224@refs/pr/3").weights == "CC-BY-NC-4.0"
    assert known_models.licence("hf", "dinov3-vits16").weights == "dinov3-license"
    with pytest.raises(WrongUse, match=r"there is no such folder, config\.json of the repository owner/name is not in"):
        known_models.licence("hf", "owner/name")  # and no network


def test_a_folder_without_the_settings_of_its_processor_is_one_sentence(folder: Path) -> None:
    (folder / PROCESSOR).unlink()
    assert refused(f"hf/{folder}").startswith(f"{folder} has no {PROCESSOR}, which says how images are prepared: copy")


def test_what_is_said_of_a_model(cache: Path, folder: Path) -> None:
    cached(cache, folder)
    assert hf.described(f"{VIT}@main") == [
        *(("repository", VIT), ("revision", "main"), ("kind", "vit"), ("classes", "2"), ("for", "embed, classify")),
    ]
    assert ("folder", str(folder)) in hf.described(str(folder))
    for kind, head, commands in (
        ("dinov2", "Dinov2Model", "embed"),
        ("d_fine", "DFineForObjectDetection", "detect"),
        ("rf_detr", "RfDetrForObjectDetection", "detect"),
        ("rf_detr", "RfDetrForInstanceSegmentation", "detect, segment"),
        ("segformer", "SegformerForSemanticSegmentation", "segment"),
        ("bert", "BertModel", "no command, as this kind is not among those that cvjobs knows"),
    ):
        changed(folder, CONFIG, model_type=kind, architectures=[head])
        assert dict(hf.described(str(folder)))["for"] == commands


def test_short_names_stand_for_one_repository_each() -> None:
    entries = catalogue.entries("hf")
    for names in ([entry.model for entry in entries], [entry.repository for entry in entries]):
        assert len(set(names)) == len(names) > 150
    others = {entry.model for family in ("timm", "torchvision") for entry in catalogue.entries(family)}
    assert not others & {entry.model for entry in entries}
    assert short_names.hub("d-fine-n@v1") == "ustc-community/dfine-nano-coco@v1"
    for entry in entries:
        assert opened(entry.model, short_names.hub(entry.model)).hub == entry.repository


def test_names_are_said_without_the_library() -> None:
    program = "import sys; from cvjobs.networks.families import hf; hf.names('embed'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "huggingface_hub", "numpy"} & set(done.stdout.split())


def test_what_moves_with_a_model_is_watched(cache: Path, folder: Path) -> None:
    """An output is known to be of the same model by the state of its files, without loading it."""
    place = cached(cache, folder)
    moved = registry.embedder(f"hf/{VIT}").beside  # type: ignore[attr-defined]
    assert [Path(name).read_text() for name in moved] == [place.name]
    assert str(folder / PROCESSOR) in registry.embedder(f"hf/{folder}").beside  # type: ignore[attr-defined]


def test_detectors_and_segmenters_are_found_by_name(tmp_path: Path) -> None:
    with loading.quiet():
        named = {"id2label": {0: "cat", 1: "dog"}}
        boxes = transformers.YolosConfig(**WIDTHS, image_size=[32, 48], patch_size=16, num_detection_tokens=5, **named)
        transformers.YolosForObjectDetection(boxes).save_pretrained(tmp_path / "boxes")
        transformers.YolosImageProcessor().save_pretrained(tmp_path / "boxes")
        pixels = transformers.SegformerConfig(hidden_sizes=[16] * 4, decoder_hidden_size=16, **named)
        transformers.SegformerForSemanticSegmentation(pixels).save_pretrained(tmp_path / "pixels")
        transformers.SegformerImageProcessor().save_pretrained(tmp_path / "pixels")
    for found in (registry.detector(f"hf/{tmp_path / 'boxes'}"), registry.segmenter(f"hf/{tmp_path / 'pixels'}")):
        assert [category.name for category in found.categories] == ["cat", "dog"]
        assert found.facts["settings_sha256"]
        assert str(Path(found.file).parent / PROCESSOR) in found.beside  # type: ignore[attr-defined]
    for make, folder in ((registry.detector, "pixels"), (registry.segmenter, "boxes")):
        with pytest.raises(WrongUse, match="is of the kind"):
            make(f"hf/{tmp_path / folder}")

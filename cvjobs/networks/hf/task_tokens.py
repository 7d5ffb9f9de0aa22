"""What OneFormer is told to do, as the numbers that its own tokenizer makes of a sentence."""

from __future__ import annotations

from typing import Literal

from cvjobs.common.errors import WrongUse
from cvjobs.networks.hf import loading
from cvjobs.networks.hf.repository import Repository

# What CLIP's tokenizer reads; the first two must be there.
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def of(repository: Repository, task: Literal["semantic", "instance"]) -> tuple[int, ...]:
    """Return the numbers, as many as the model takes; raises WrongUse where the repository's files make none."""
    places = [repository.file(name) for name in FILES]
    for place, name in zip(places[:2], FILES, strict=False):
        if place is None:
            raise WrongUse(
                f"{repository.name} has no {name}, which the words for what to look for are made with: copy that of "
                "the model that it was made from beside it."
            )
    from transformers import CLIPTokenizer

    length = int(repository.config.get("task_seq_len") or 77)
    try:
        with loading.quiet():
            tokenizer = CLIPTokenizer.from_pretrained(str(places[0].parent), local_files_only=True)  # type: ignore[union-attr]
            made = tokenizer([f"the task is {task}"], padding="max_length", max_length=length, truncation=True)
        pairs = zip(made["input_ids"][0], made["attention_mask"][0], strict=True)
        return tuple(int(number) * int(real) for number, real in pairs)
    except Exception as error:  # whatever the library trips over in a file that anyone wrote
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise WrongUse(f"The vocabulary of {repository.name} makes no tokens ({why}): copy it again.") from error

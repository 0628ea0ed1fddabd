"""Image files of explanations: an image, its heat, and names that are safe in any folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.inspection.explain import ExplainedImage, GivenExplanation, LabelledExplanation
from pipeline.inspection.gradcam import overlay
from pipeline.inspection.seen import Pixels
from pipeline.loading.dataset import Floats

SIDE = 160  # pixels, at least, of the longer side of an image
GAP = 4  # white pixels between an image and its heat
LONGEST = 48  # bytes of a part of a file's name
PLAIN = "._"  # characters of file names beside letters and digits


def panels(image: ExplainedImage, side: int = SIDE) -> list[Pixels]:
    """Return an image, its heat for the predicted class and, if that is wrong, for its label.

    Each is uint8 (height, width, 3), magnified by a whole number to at least `side` pixels. Heat is
    magnified smoothly.
    """
    height, width = image.seen.shape[:2]
    factor = max(1, -(-side // max(height, width)))
    seen = image.seen.repeat(factor, 0).repeat(factor, 1)
    coloured = seen if seen.ndim == 3 else np.repeat(seen[..., None], 3, axis=2)
    heats = [image.heat, *([] if image.true_heat is None else [image.true_heat])]
    return [coloured, *(overlay(seen, _magnified(heat, factor)) for heat in heats)]


def _magnified(heat: Floats, factor: int) -> Floats:
    height, width = heat.shape
    size = (width * factor, height * factor)
    large = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    result: Floats = large.clip(0, 1).astype(np.float32)
    return result


def write_images(folder: Path, names: Sequence[str], images: Sequence[ExplainedImage]) -> list[str]:
    """Write the panels of each image side by side as PNG files; return the files' names.

    `names` are without suffix. Equal names get numbers, and names that differ in case alone.
    """
    written: list[str] = []
    used: set[str] = set()
    for name, image in zip(names, images, strict=True):
        number, unique = 1, name
        while unique.casefold() in used:
            number += 1
            unique = f"{name}-{number}"
        used.add(unique.casefold())
        folder.mkdir(exist_ok=True)
        parts = panels(image)
        gap = np.full((len(parts[0]), GAP, 3), 255, np.uint8)
        spaced = [piece for part in parts for piece in (gap, part)][1:]
        Image.fromarray(np.concatenate(spaced, axis=1)).save(folder / f"{unique}.png")
        written.append(f"{folder.name}/{unique}.png")
    return written


def file_name(*parts: str) -> str:
    """Return a name of parts joined by hyphens; other characters than letters become %XX.

    Only the last part keeps its own hyphens. A long part is cut.
    """
    *first, last = parts
    return "-".join([*(_safe(part, PLAIN) for part in first), _safe(last, f"{PLAIN}-")])


def _safe(part: str, kept: str) -> str:
    safe = ""
    for place, character in enumerate(part):
        plain = character.isalnum() or (character in kept and place > 0)
        encoded = character.encode("utf-8", "replace")
        added = character if plain else "".join(f"%{byte:02X}" for byte in encoded)
        if len((safe + added).encode()) > LONGEST:
            break
        safe += added
    return safe or "%"


def write_labelled(folder: Path, found: LabelledExplanation) -> dict[str, Any]:
    """Write the PNG files of labelled images; return explain.json's content."""
    wrong, suspects = found.misclassified, found.suspects or ()
    files = write_images(folder / "misclassified", [_name(one) for one in wrong], wrong)
    names = [
        file_name(one.image.true or "", one.suggested, f"{one.probability:.2f}", _stem(one.image))
        for one in suspects
    ]
    suspicious = write_images(folder / "suspicious", names, [one.image for one in suspects])
    scores, unadapted = found.evaluation.scores, found.evaluation.unadapted
    return {
        "split": found.split,
        "samples": found.samples,
        "errors": found.errors,
        "accuracy": (unadapted or scores).accuracy,
        "accuracy_adapted": scores.accuracy if unadapted else None,
        "misclassified": _described(wrong, files),
        "largest_losses": _described(found.largest_losses, [None] * len(found.largest_losses)),
        "suspicious_labels": None if found.suspects is None else found.suspicious,
        "estimated_label_errors": None if found.suspects is None else found.label_errors,
        "suspicious": [
            {**described, "suggested": one.suggested}
            for one, described in zip(
                suspects, _described([one.image for one in suspects], suspicious), strict=True
            )
        ],
    }


def write_given(folder: Path, found: GivenExplanation) -> dict[str, Any]:
    """Write the PNG files of images without labels; return explain.json's content."""
    names = [file_name(one.predicted, f"{one.probability:.2f}", _stem(one)) for one in found.images]
    files = write_images(folder / "given", names, found.images)
    return {
        "found": found.found,
        "given": _described(found.images, files),
        "failed": [{"file": name, "error": reason} for name, reason in found.failed],
    }


def write_json(folder: Path, content: dict[str, Any]) -> None:
    """Write explain.json."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / "explain.json").write_text(f"{text}\n", encoding="utf-8", errors="replace")


def _name(image: ExplainedImage) -> str:
    return file_name(image.true or "", image.predicted, f"{image.probability:.2f}", _stem(image))


def _stem(image: ExplainedImage) -> str:
    return Path(image.name).stem


def _described(
    images: Sequence[ExplainedImage], files: Sequence[str | None]
) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "true": one.true,
            "predicted": one.predicted,
            "probability": one.probability,
            "loss": one.loss,
            "file": file,
            "neighbours": [
                {"index": near.index, "label": near.label, "similarity": near.similarity}
                for near in one.neighbours
            ],
        }
        for one, file in zip(images, files, strict=True)
    ]

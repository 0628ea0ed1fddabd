"""Exported programs as single files: ONNX and PyTorch's own format (.pt2)."""

import io
import json
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from beton.arrays import Uint8Array
from pipeline.errors import UserError
from pipeline.export.check import Reference, largest_difference, run_program
from pipeline.loading.dataset import Floats

DESCRIPTION = "description.json"  # in a .pt2 file
MOST_BYTES = (1 << 31) - (1 << 24)  # of weights in one ONNX file


def write_onnx(
    path: Path, program: ExportedProgram, description: Mapping[str, Any], expected: Reference
) -> float:
    """Write an ONNX file; return its largest difference from the run, computed by onnxruntime.

    The file holds the weights and, in its metadata, the description. Raises UserError as
    `largest_difference` does, if the extra `export` is missing, and for weights of 2 GB or more.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: ./launch.sh setup export") from error
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > MOST_BYTES:
        raise UserError("to: got onnx for weights of 2 GB or more, expected pt2")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter, about its own code
        exported = torch.onnx.export(
            program, dynamo=True, input_names=["pages"], output_names=["logits"], verbose=False
        )
    assert exported is not None
    for name, value in description.items():
        exported.model.metadata_props[name] = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        )
    exported.save(path, external_data=False)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pages: Uint8Array) -> Floats:
        logits: Floats = session.run(["logits"], {"pages": np.ascontiguousarray(pages)})[0]
        return logits

    return largest_difference(run, expected, "ONNX")


def write_pt2(
    path: Path, program: ExportedProgram, description: Mapping[str, Any], expected: Reference
) -> float:
    """Write a .pt2 file; return its largest difference from the run, after loading it again.

    The description is in its extra file description.json. Raises UserError as
    `largest_difference` does.
    """
    text = json.dumps(description, ensure_ascii=False, indent=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that share memory with none
        torch.export.save(program, path, extra_files={DESCRIPTION: text})
    loaded = torch.export.load(path).module()
    return largest_difference(lambda pages: run_program(loaded, pages), expected, "pt2")

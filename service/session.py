"""ONNX Runtime sessions."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort


def session(model: Path, threads: int) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU without spinning: idle threads must not slow other processes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

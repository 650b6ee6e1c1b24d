"""Where and how torch computes: device, precision, threads, determinism."""

from __future__ import annotations

import os

import torch

from tasks.stage import StageError

CPU = torch.device("cpu")


def make_deterministic(seed: int, threads: int | None) -> None:
    """Seed torch and make it deterministic: with the same machine and threads, weights are equal bit for bit."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads or os.cpu_count() or 1)


def pick_device(device: str) -> torch.device:
    """``auto`` is the GPU if there is one. Raises StageError for a GPU that does not exist."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StageError("train.device = 'cuda': torch sees no GPU here; use auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are faster than float32 on ``device``: AMX or AVX512-BF16, or a GPU since Ampere."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))

"""Where the tests of the kernels run."""

import os

import pytest
import torch
from interpreted import shrink_programs

from losses import triton_support

PATHS = ["triton interpreter", *(pytest.param(f"{path} CUDA", marks=pytest.mark.gpu) for path in ("triton", "torch"))]


@pytest.fixture(scope="module", params=PATHS)
def device(request):
    """Where the case runs."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "triton interpreter":
            pytest.importorskip("triton")
            if os.environ.get("TRITON_INTERPRET") != "1":
                pytest.skip("Triton compiles its kernels in this process")
            shrink_programs(patch)
        patch.setattr(triton_support, "usable", lambda logits: "triton" in request.param)
        yield torch.device("cuda" if "CUDA" in request.param else "cpu")

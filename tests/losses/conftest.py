"""Where the tests of the kernels run."""

import os

import pytest
import torch

from losses import triton_support

PATHS = ["triton interpreter", *(pytest.param(f"{path} CUDA", marks=pytest.mark.gpu) for path in ("triton", "torch"))]


@pytest.fixture(scope="module", params=PATHS)
def device(request):
    """Where the case runs. The interpreter takes smaller blocks, so that small inputs have several."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "triton interpreter":
            pytest.importorskip("triton")
            if os.environ.get("TRITON_INTERPRET") != "1":
                pytest.skip("Triton compiles its kernels in this process")
            for module in ("ranking.triton_passes", "focal_triton"):
                patch.setattr(f"losses.{module}.BLOCK", 256)
        patch.setattr(triton_support, "usable", lambda logits: "triton" in request.param)
        yield torch.device("cuda" if "CUDA" in request.param else "cpu")

"""Compiles the NMS kernel for GPUs that need not be there: architecture, registers, bytes spilled, fused operations.

In a process of its own, without TRITON_INTERPRET: python tests/detector/compile_nms.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from detector.nms_triton import NUM_WARPS, _nms

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
TYPES = {"boxes": "*fp32", "scores": "*fp32", "labels": "*i32", "kept": "*i64", "threshold": "fp32"}
TYPES = {name: TYPES.get(name, "constexpr" if name == "BLOCK" else "i32") for name in _nms.arg_names}

if __name__ == "__main__":
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(TYPES.values()) if kind[0] == "*"}
    source = ASTSource(fn=_nms, signature=TYPES, constexprs={"BLOCK": 8192}, attrs=aligned)
    for capability, architecture in ((80, "sm_80"), (90, "sm_90a")):
        options = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
        text = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]
        with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
            file.write(text)
            file.flush()
            command = [PTXAS, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers = re.search(r"Used (\d+) registers", report)[1]
        spilled = re.search(r"(\d+) bytes spill stores", report)[1]
        print(f"sm_{capability}", registers, spilled, "fma.rn" in text)

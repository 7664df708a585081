"""Compiles every kernel of the losses for a GPU that need not be there, and prints what each takes of it.

In a process of its own, without TRITON_INTERPRET: python tests/losses/compile_kernels.py. One line for each kernel and
type of logits: kernel, type, registers of a thread, bytes that it spills.
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

from losses import focal_triton
from losses.ranking import triton_passes
from losses.ranking.triton_passes import BLOCK, NUM_WARPS

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
POINTERS = {"counts": "*i32", "holds": "*i8", "relevants": "*i8", "ends": "*i64", "index": "*i64", "copies": "*fp64"}
POINTERS |= {"origins": "*fp64", "sums": "*fp64", "grad_total": "*fp64"}
IN_COMPUTE_TYPE = ("edges", "anchors", "slopes", "values")
IN_LOGITS_TYPE = ("logits", "result", "gradient")
SCALARS = {"alpha": "fp32", "gamma": "fp32"}
KERNELS = {
    "i8": (triton_passes._survey, triton_passes._collect),
    "fp32": (
        *(triton_passes._survey, triton_passes._collect, triton_passes._histogram),
        *(triton_passes._weighted_steps, focal_triton._focal_sum, focal_triton._focal_gradient),
    ),
    "bf16": (
        *(triton_passes._histogram, triton_passes._weighted_steps),
        *(focal_triton._focal_sum, focal_triton._focal_gradient),
    ),
    "fp16": (triton_passes._histogram, triton_passes._weighted_steps),
    "fp64": (triton_passes._histogram, triton_passes._weighted_steps),
}


def signature(kernel, dtype: str, size: str) -> dict[str, str]:
    compute = "*fp64" if dtype == "fp64" else "*fp32"
    types = {}
    for name in kernel.arg_names:
        if name in ("BLOCK", "logit_stride", "target_stride"):
            types[name] = "constexpr"
        elif name == "targets":  # as the detector's; the kernels that read them alone take any type
            types[name] = f"*{dtype}" if "logits" not in kernel.arg_names else "*fp32"
        elif name in IN_LOGITS_TYPE:
            types[name] = f"*{dtype}"
        elif name in IN_COMPUTE_TYPE:
            types[name] = compute
        else:
            types[name] = POINTERS.get(name) or SCALARS.get(name) or (size if name == "size" else "i32")
    return types


def compile_kernel(kernel, dtype: str, size: str, capability: int) -> tuple[int, int]:
    """Registers of a thread and bytes spilled."""
    types = signature(kernel, dtype, size)
    constants = {name: BLOCK if name == "BLOCK" else 1 for name, kind in types.items() if kind == "constexpr"}
    divisible = [["tt.divisibility", 16]]
    aligned = {(i,): divisible for i, (name, kind) in enumerate(types.items()) if kind[0] == "*" or name == "size"}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": NUM_WARPS})
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        architecture = "sm_90a" if capability == 90 else f"sm_{capability}"
        command = [PTXAS, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"Used (\d+) registers", report)[1]), int(re.search(r"(\d+) bytes spill stores", report)[1])


if __name__ == "__main__":
    for dtype, kernels in KERNELS.items():
        for kernel in kernels:
            for size, capability in (("i32", 80), ("i32", 90), ("i64", 90)):
                registers, spilled = compile_kernel(kernel, dtype, size, capability)
                print(kernel.__name__, dtype, size, f"sm_{capability}", registers, spilled)

"""Compiles the epilogue kernels for GPUs that need not be there: kernel, type, architecture, registers, bytes spilled.

In a process of its own, without TRITON_INTERPRET: python tests/detector/backbones/compile_epilogue.py
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from detector.backbones import epilogue_triton as kernels

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
CONSTANTS = {"CHANNELS": 256, "SHORTCUT": True, "BLOCK": kernels.BLOCK, "ROWS": kernels.ROWS}
CONSTANTS |= {"COLUMNS": kernels.COLUMNS}
MAPS = ("x", "shortcut", "grad", "y", "result")


def compile_kernel(kernel, dtype: str, capability: int) -> tuple[str, str]:
    """Registers of a thread and bytes spilled."""
    types = {name: f"*{dtype}" if name in MAPS else "constexpr" for name in kernel.arg_names}
    types |= {name: "*fp32" for name in ("bias", "sums") if name in types}
    types |= {name: "i32" for name in ("size", "rows", "each") if name in types}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind[0] == "*"}
    constants = {name: value for name, value in CONSTANTS.items() if name in types}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    text = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        command = [PTXAS, "-v", f"--gpu-name={'sm_90a' if capability == 90 else 'sm_80'}", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return re.search(r"Used (\d+) registers", report)[1], re.search(r"(\d+) bytes spill stores", report)[1]


if __name__ == "__main__":
    for kernel in (kernels._forward, kernels._backward):
        for dtype in ("fp32", "bf16", "fp16"):
            for capability in (80, 90):
                print(kernel.__name__, dtype, f"sm_{capability}", *compile_kernel(kernel, dtype, capability))

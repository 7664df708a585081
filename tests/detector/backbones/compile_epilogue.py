"""Compiles the epilogue kernels for GPUs that need not be there: kernel, type, architecture, registers, bytes spilled.

`ahead_of_time.run_compiler` runs it.
"""

from ahead_of_time import compile_kernel

from detector.backbones import epilogue_triton as kernels

CONSTANTS = {"CHANNELS": 256, "SHORTCUT": True, "RELU": True, "BLOCK": kernels.BLOCK, "ROWS": kernels.ROWS}
CONSTANTS |= {"COLUMNS": kernels.COLUMNS}
TYPES = {"bias": "*fp32", "sums": "*fp32", "size": "i32", "rows": "i32", "each": "i32"}  # the others are feature maps

if __name__ == "__main__":
    for kernel in (kernels._forward, kernels._backward):
        constants = {name: value for name, value in CONSTANTS.items() if name in kernel.arg_names}
        for dtype in ("fp32", "bf16", "fp16"):
            types = {
                name: "constexpr" if name in CONSTANTS else TYPES.get(name, f"*{dtype}") for name in kernel.arg_names
            }
            for capability in (80, 90):
                compiled = compile_kernel(kernel, types, constants, capability)
                print(kernel.__name__, dtype, f"sm_{capability}", compiled.registers, compiled.spilled)

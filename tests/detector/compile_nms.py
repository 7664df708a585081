"""Compiles the NMS kernel for GPUs that need not be there: architecture, registers, bytes spilled, fused operations.

`ahead_of_time.run_compiler` runs it.
"""

from ahead_of_time import compile_kernel

from detector.nms_triton import NUM_WARPS, _nms

TYPES = {"boxes": "*fp32", "scores": "*fp32", "labels": "*i32", "kept": "*i64", "threshold": "fp32"}
TYPES = {name: TYPES.get(name, "constexpr" if name == "BLOCK" else "i32") for name in _nms.arg_names}

if __name__ == "__main__":
    for capability in (80, 90):
        constants, options = {"BLOCK": 8192}, {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
        compiled = compile_kernel(_nms, TYPES, constants, capability, **options)
        print(f"sm_{capability}", compiled.registers, compiled.spilled, "fma.rn" in compiled.ptx)

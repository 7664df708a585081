"""Compiles every kernel of the losses for a GPU that need not be there, and prints what each takes of it.

`ahead_of_time.run_compiler` runs it, with compute capabilities as arguments (80 and 90). One line for each kernel and
type of logits: kernel, type, type of the number of logits, GPU, registers of a thread, bytes that it spills, bytes of
shared memory.
"""

import sys

from ahead_of_time import Compiled, compile_kernel

from losses import alrp_triton, ap_triton, focal_triton, rank_sort_triton
from losses.ranking import (
    triton_bins,
    triton_cells,
    triton_entries,
    triton_histogram,
    triton_order,
    triton_passes,
    triton_sums,
)

OF_LOGITS = ("logits", "result", "gradient")  # type of the logits
OF_COMPUTING = ("edges", "anchors", "lines", "factor")  # float64 for float64 logits, else float32
OF_COMPUTING += ("classification", "localisation", "loss", "ranking", "sorting")
INTEGERS = ("counts", "order", "places", "owners", "ends")
POINTERS = dict.fromkeys(INTEGERS, "*i32") | {"contents": "*i8", "entries": "*i64", "index": "*i64"}
POINTERS |= {"ranges": "*i64", "cells_per_unit": "*fp32", "targets": "*i8"}  # as the detector makes them
NUMBERS = {"alpha": "fp32", "gamma": "fp32"}
CONSTANTS = {"logit_stride": 1, "target_stride": 1, "FAR_APART": 2.0**12, "REACH": 2.0**20}
CONSTANTS |= {"BLOCK": triton_passes.BLOCK, "MIN_FALSE_POSITIVES": 1e-5, "MIN_MISSORTED": 1e-10}

# By type of the logits; those that do not depend on it stand once.
OF_ENTRIES = (triton_histogram._histogram, triton_passes._weighted_steps)
OF_FOCAL = (focal_triton._focal_sum, focal_triton._focal_gradient)
OF_POSITIVES = (
    *(triton_entries._positives, triton_entries._lift, triton_histogram._sum_copies, triton_bins._breakpoints),
    *(triton_cells._cells, triton_sums._tables, alrp_triton._classification, alrp_triton._localisation),
    *(ap_triton._imprecision, rank_sort_triton._means),
)
KERNELS = {
    "fp32": (
        *(triton_passes._survey, triton_passes._collect, *OF_ENTRIES, *OF_FOCAL, *OF_POSITIVES),
        *(triton_order._order, triton_order._fold, triton_sums._hinges, triton_sums._ranks),
        *(rank_sort_triton._missorted, rank_sort_triton._pushed),
    ),
    "bf16": (*OF_ENTRIES, *OF_FOCAL, triton_entries._positives, triton_entries._lift),
    "fp16": OF_ENTRIES,
    "fp64": (*OF_ENTRIES, *OF_POSITIVES),
}


def signature(kernel, dtype: str, size: str) -> dict[str, str]:
    types = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr or name in CONSTANTS:
            types[name] = "constexpr"
        elif name in OF_LOGITS and kernel is not triton_order._order:
            types[name] = f"*{dtype}"
        elif name == "copies" or (name == "lines" and kernel is triton_passes._weighted_steps):
            types[name] = "*fp64" if dtype == "fp64" else "*i64"  # two numbers in one
        elif name in OF_COMPUTING:
            types[name] = "*fp64" if dtype == "fp64" else "*fp32"
        elif name == "size":
            types[name] = size if "targets" in kernel.arg_names else "i32"
        elif parameter.annotation_type or name in NUMBERS:
            types[name] = parameter.annotation_type or NUMBERS[name]
        elif name == "ends" and kernel is triton_passes._collect:
            types[name] = "*i64"
        else:
            types[name] = POINTERS.get(name) or ("*fp64" if reads(kernel, name) else "i32")
    return types


def reads(kernel, name: str) -> bool:
    """Whether the argument is a pointer: numbers are not specialised, or are the size."""
    return name not in (*kernel.do_not_specialize, "size")


def constants(kernel, types: dict[str, str]) -> dict[str, object]:
    module = sys.modules[kernel.fn.__module__]
    return {
        name: CONSTANTS[name] if name in CONSTANTS else getattr(module, name)
        for name, kind in types.items()
        if kind == "constexpr"
    }


def compile_for(kernel, dtype: str, size: str, capability: int) -> Compiled:
    types = signature(kernel, dtype, size)
    of_entries = "BLOCK" in types
    options = {"num_warps": triton_passes.NUM_WARPS} if of_entries else {}
    aligned = ("size",) if of_entries else ()
    return compile_kernel(kernel, types, constants(kernel, types), capability, aligned, **options)


if __name__ == "__main__":
    capabilities = [int(word) for word in sys.argv[1:]] or [80, 90]
    for dtype, kernels in KERNELS.items():
        for kernel in kernels:
            for capability in capabilities:
                # more than 2**31 logits, where entries are counted
                for size in ("i32", "i64") if capability == 90 and "BLOCK" in kernel.arg_names else ("i32",):
                    *numbers, _ = compile_for(kernel, dtype, size, capability)
                    print(kernel.__name__, dtype, size, f"sm_{capability}", *numbers)

"""Triton kernels compiled for a GPU that need not be there."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent


class Compiled(NamedTuple):
    """What a kernel takes of a GPU: registers of a thread, bytes that it spills, bytes of shared memory; its PTX."""

    registers: int
    spilled: int
    shared: int
    ptx: str


def ptxas() -> Path:
    """NVIDIA's assembler, which Triton's wheels for Linux bring."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def compile_kernel(
    kernel, types: Mapping[str, str], constants: Mapping[str, object], capability: int, aligned=(), **options
) -> Compiled:
    """Compiles it for a compute capability such as 90, in a process without TRITON_INTERPRET.

    Args:
        types: argument -> Triton's name of its type, or "constexpr". constants: values of those.
        aligned: numbers that are multiples of 16, as pointers are.
        options: of the launch, such as num_warps.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    multiples = [i for i, (name, kind) in enumerate(types.items()) if kind[0] == "*" or name in aligned]
    attributes = {(i,): [["tt.divisibility", 16]] for i in multiples}
    source = ASTSource(fn=kernel, signature=dict(types), constexprs=dict(constants), attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(compiled.asm["ptx"])
        file.flush()
        name = "sm_90a" if capability == 90 else f"sm_{capability}"
        command = [ptxas(), "-v", f"--gpu-name={name}", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, spilled = (int(re.search(text, report)[1]) for text in (r"Used (\d+) reg", r"(\d+) bytes spill s"))
    return Compiled(registers, spilled, compiled.metadata.shared, compiled.asm["ptx"])


def run_compiler(script: Path, cache: Path, *arguments: object) -> list[list[str]]:
    """Words of each line that a script prints, which compiles kernels; skips the test where there is no compiler."""
    pytest.importorskip("triton")
    if not ptxas().is_file():
        pytest.skip("this Triton has no compiler for NVIDIA GPUs")
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS)))
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache), "PYTHONPATH": paths}
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]

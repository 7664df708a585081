#!/usr/bin/env bash
# Measures this machine's GPU in named parts and packs one page and one archive of a few KB, to attach to a report:
#     bash scripts/gpu_report.sh                             all parts but compile, 8 minutes
#     bash scripts/gpu_report.sh --minutes 5 loss step       some, within five minutes
# Parts, run in this order or the one given:
#     tests loss step infer train eval profile               and compile, whose compilation takes minutes of its own
# A part may take half of the time that is left, the last one all. Every part is packed as soon as it is done; what the
# minutes do not reach is named on the page. Options:
#     --output DIR   folder of the results, which must not exist (gpu-report); the archive is DIR.tar.gz
#     --tiny         on the CPU at the smallest sizes, to try the script itself; its numbers mean nothing
# Nothing is installed: it takes the packages of .venv, or else of python3 (ALRP_PYTHON names another).
set -euo pipefail
cd "$(dirname "$0")/.."
all=(tests loss step infer train eval profile)
minutes=8 output=gpu-report tiny="" parts=()
while [ "$#" -gt 0 ]; do
    case "$1" in
    --minutes | --output)
        [ "$#" -gt 1 ] || { echo "error: $1 needs a value" >&2; exit 2; }
        [ "$1" = --minutes ] && minutes="$2" || output="$2"
        shift
        ;;
    --tiny) tiny=yes ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    tests | loss | step | infer | train | eval | profile | compile) parts+=("$1") ;;
    *) echo "error: $1: no part or option; --help lists them" >&2; exit 2 ;;
    esac
    shift
done
[[ "$minutes" =~ ^[0-9]+$ ]] || { echo "error: --minutes $minutes: must be a whole number" >&2; exit 2; }
[ "${#parts[@]}" -gt 0 ] || parts=("${all[@]}")
[ ! -e "$output" ] && [ ! -e "$output.tar.gz" ] || {
    echo "error: $output or $output.tar.gz exists; choose another --output" >&2
    exit 2
}
PYTHON="${ALRP_PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
device=cuda images=5000 seen=200 steps=320 batch=16 small=() logits=()
sizes=("512 512" "800 1344") view="500 833" tests=(tests)
if [ -n "$tiny" ]; then
    device=cpu images=8 seen=2 steps=4 batch=1 small=(--small) logits=(--logits 8000 --steps 2)
    sizes=("64 64") view="64 96" tests=(tests/losses/test_triton_support.py)
fi
mkdir -p "$output"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

benchmark() { # benchmark NAME COMMAND OPTION...: one table, as text and as JSON
    local name="$1" command="$2"
    shift 2
    "$PYTHON" scripts/benchmark.py "$command" --device "$device" --json "$output/$name.json" "$@"
}

run_part() {
    local size several=()
    case "$1" in
    tests) # in several processes where pytest-xdist is there: in one they take minutes
        ! "$PYTHON" -c "import xdist" 2>/dev/null || several=(-n auto --maxprocesses 8)
        "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider "${several[@]}" "${tests[@]}"
        ;;
    loss) benchmark loss loss --folder "$work" "${logits[@]}" "${small[@]}" ;;
    step) for size in "${sizes[@]}"; do benchmark "step-${size/ /x}" train --size $size --batch-size "$batch"; done ;;
    infer)
        benchmark infer-1 infer --size $view --images "$seen" --batch-size 1 --eager
        benchmark infer-16 infer --size $view --images "$seen" --batch-size "$batch" --eager
        ;;
    train) benchmark train trainer --folder "$work" --images "$images" --steps "$steps" "${small[@]}" ;;
    eval) benchmark eval evaluation --folder "$work" --images "$images" "${small[@]}" ;;
    profile) for size in "${sizes[@]}"; do benchmark "profile-${size/ /x}" profile --size $size --batch-size "$batch"; done ;;
    compile)
        for size in "${sizes[@]}"; do
            benchmark "compile-${size/ /x}" profile --size $size --batch-size "$batch" --compile
        done
        ;;
    esac
}

pack() { # the page anew, and everything in one archive, which is whole at any moment
    {
        echo "# GPU report, $(date -u +%Y-%m-%d), revision $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
        echo
        "$PYTHON" - <<'END'
import os, platform, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{name}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}")
END
        for part in "${parts[@]}"; do
            printf '\n## %s: %s\n\n' "$part" "$(cat "$output/$part.status" 2>/dev/null || echo 'not reached')"
            [ ! -e "$output/$part.txt" ] || tail -n 110 "$output/$part.txt" | cut -c 1-240
        done
    } >"$output/page.md"
    tar -czf "$output.tar.gz.part" -C "$(dirname "$output")" "$(basename "$output")"
    mv "$output.tar.gz.part" "$output.tar.gz"
}

export -f run_part benchmark
export PYTHON device images seen steps batch view output work
declare -p sizes small logits tests >"$work/arrays"
for part in "${parts[@]}"; do
    left=$((60 * minutes - SECONDS))
    [ "$left" -gt 0 ] || break
    start=$SECONDS status=0 limit=$left
    [ "$part" = "${parts[-1]}" ] || [ "$left" -lt 60 ] || limit=$((left / 2))
    timeout -k 5 "$limit" bash -euo pipefail -c ". '$work/arrays'; run_part $part" >"$output/$part.txt" 2>&1 || status=$?
    words="status $status"
    [ "$status" -ne 0 ] || words=done
    [ "$status" -ne 124 ] || words="cut off"
    echo "$words, $((SECONDS - start)) s" >"$output/$part.status"
    pack
done
pack
cat "$output/page.md"
echo
echo "attach $output.tar.gz ($(($(stat -c %s "$output.tar.gz") / 1024)) KB)"

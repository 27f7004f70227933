#!/usr/bin/env bash
# Everything that needs a GPU, in one command, within nine minutes and without network: build against the
# packages that the machine already has, run the tests marked gpu, run the benchmarks.
#
#   bench/gpu_node.sh [OUT]
#
# OUT (default build/gpu_node) keeps the installed package, the logs and a stamp per finished step, so that a run
# that was cut short goes on where it stopped; remove it to begin anew. Results go to bench/results/, and a copy to
# OUT/results. PYTHON chooses the interpreter, BUDGET the seconds for all steps.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=$(realpath -m "${1:-build/gpu_node}")
deadline=$((SECONDS + ${BUDGET:-530}))
mkdir -p "$out/results" bench/results
export SDAS_RESULTS=$out/results
export SDAS_COMMIT=${SDAS_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
SDAS_MACHINE=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
export SDAS_MACHINE=${SDAS_MACHINE:-$(uname -m) without GPU}
export PYTHONPATH=$out/site PYTHONSAFEPATH=1

# step NAME COMMAND...: runs it once, within what is left of the time, and notes its success. A failure is
# reported at the end and does not keep later steps from running.
failed=()
step() {
    local name=$1 left=$((deadline - SECONDS))
    shift
    [[ -e $out/$name.done ]] && return
    if ((left <= 0)); then
        failed+=("$name (no time left)")
        return
    fi
    echo "== $name"
    local start=$SECONDS status=0
    timeout "$left" "$@" >"$out/$name.log" 2>&1 || status=$?
    if ((status == 0 || status == 5)); then  # 5: pytest found no test of that kind
        echo "$((SECONDS - start)) s" >"$out/$name.done"
    else
        failed+=("$name ($status, see $out/$name.log)")
        tail -n 25 "$out/$name.log"
    fi
}

step build "$python" -m pip install --no-build-isolation --no-deps --no-index --upgrade \
    --target "$out/site" -C build-dir="$out/build" .
if [[ ! -e $out/build.done ]]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
step explain "$python" -c "import sdas_kernels; print(sdas_kernels.explain())"
step tests "$python" -m pytest -m gpu tests -q --junitxml "$out/results/gpu_tests.xml"
for file in bench/bench_*.py; do
    step "$(basename "$file" .py)" "$python" -m pytest -q "$file" --benchmark-columns=median
done
cp "$out"/results/*.json bench/results/ 2>/dev/null || true

if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all steps done; results in bench/results/"

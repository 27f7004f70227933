#!/usr/bin/env bash
# Everything that needs a GPU, in one command: build, test, tune, measure. Ends within nine minutes.
#
#   bench/gpu_node.sh [OUT]
#
# Needs: an NVIDIA GPU; Python >= 3.10 with torch >= 2.11, triton >= 3.6, numpy, vesin, pybind11, pytest, scipy; a C++17
# compiler and CMake. With pytest-xdist, ASE, e3nn, cuequivariance-torch with its CUDA kernels, openequivariance it also
# tests on more cores and systems, and compares; what lies in PYTHONPATH counts. No network, no package index.
#
# OUT (default build/gpu_node) keeps the installed package, the logs and a stamp per finished step, so that a run that
# was cut short goes on where it stopped; remove it to begin anew. Steps come by value, each with its own time limit,
# and a benchmark keeps what it has measured when it is cut. Results go to OUT/results and to bench/results/.
#
# PYTHON chooses the interpreter, BUDGET the seconds for all steps, JOBS the processes that tests run in.
# SDAS_DEVICE=cpu is a dry run: every step on tiny sizes, Triton by its interpreter; results then stay in OUT.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=$(realpath -m "${1:-build/gpu_node}")
deadline=$((SECONDS + ${BUDGET:-530}))
export SDAS_DEVICE=${SDAS_DEVICE:-cuda}
mkdir -p "$out/results"
export SDAS_RESULTS=$out/results
export SDAS_COMMIT=${SDAS_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
SDAS_MACHINE=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
export SDAS_MACHINE=${SDAS_MACHINE:-$(uname -m) without GPU}
export PYTHONPATH=$out/site:$PWD/bench${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1

# step NAME SECONDS COMMAND...: runs it once, within its limit and what is left of the time, and notes its success. A
# failure is reported at the end and does not keep later steps from running.
failed=()
step() {
    local name=$1 limit=$2 left=$((deadline - SECONDS)) start=$SECONDS status=0
    shift 2
    [[ -e $out/$name.done ]] && return
    if ((left <= 5)); then
        failed+=("$name (no time left)")
        return
    fi
    echo "== $name"
    timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$out/$name.log" 2>&1 || status=$?
    if ((status == 0)); then
        echo "$((SECONDS - start)) s" | tee "$out/$name.done"
    else
        failed+=("$name ($status after $((SECONDS - start)) s, see $out/$name.log)")
        tail -n 15 "$out/$name.log"
    fi
}

build() {
    local ninja=() version
    command -v ninja >/dev/null && ninja=(-G Ninja)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
    cmake -S . -B "$out/build" "${ninja[@]}" -DSKBUILD_PROJECT_VERSION="$version" \
        -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
    cmake --build "$out/build" --parallel "${JOBS:-$(nproc)}"
    rm -rf "$out/site"
    mkdir -p "$out/site"
    cp -r sdas_kernels python/sdas "$out/site"
    rm -f "$out"/site/sdas_kernels/_native*.so
    cp "$out"/build/_native*.so "$out/site/sdas_kernels"
}

[[ -d $out/site ]] || rm -f "$out/build.done"
export -f build
export out python
step build 240 bash -euo pipefail -c build
if [[ ! -e $out/build.done ]]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi

tests=("$python" -m pytest -q -p no:cacheprovider --junitxml)
cases=() # all, unless dry
if [[ $SDAS_DEVICE == cpu ]]; then
    tests=(env TRITON_INTERPRET=1 "${tests[@]}")
    cases=(-k "attention or less_precision")
elif "$python" -c "import xdist" 2>/dev/null; then
    tests=("$python" -m pytest -n "${JOBS:-12}" -q -p no:cacheprovider --junitxml)
fi
step explain 60 "$python" -c "import sdas_kernels; print(sdas_kernels.__file__, sdas_kernels.explain(), sep='\n')"
step kernels 150 "${tests[@]}" "$out/results/kernels.xml" tests/ops/triton_cases.py "${cases[@]}"
step tests 150 "${tests[@]}" "$out/results/tests.xml" -m gpu tests/ops tests/nn \
    --deselect tests/ops/test_triton.py::test_kernels_on_a_gpu
step attention 90 "$python" -m gpu.attention attention
step model 90 "$python" -m gpu.potential model
step graph 60 "$python" -m gpu.potential graph
step cuequivariance 90 "$python" -m gpu.attention cuequivariance
step harmonics 60 "$python" -m gpu.operators harmonics
step product 120 "$python" -m gpu.operators product
step convolution 120 "$python" -m gpu.operators convolution
step tune 150 env SDAS_KERNELS_TUNING="$out/results/tuning.json" "$python" -m sdas_kernels.tuning
step tuned 90 env SDAS_KERNELS_TUNING="$out/results/tuning.json" SDAS_RESULTS="$out/results/tuned" \
    "$python" -m gpu.attention attention
step products 120 "${tests[@]}" "$out/results/products.xml" \
    tests/ops/triton_tensor_product_cases.py tests/ops/triton_tensor_product_conv_cases.py "${cases[@]}"
step training 60 "$python" -m gpu.potential training
step reference 60 "$python" -m gpu.attention reference
if [[ $SDAS_DEVICE != cpu ]]; then
    mkdir -p bench/results
    cp "$out"/results/*.json bench/results/ 2>/dev/null || true
fi
"$python" -m gpu.summary "$out/results"

if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all steps done; results in $out/results"

#!/usr/bin/env bash
# Makes docs/results/gpu.md on a machine with a GPU: `make gpu`. Random weights and drawn images, so nothing is fetched.
# About ten minutes on one of NVIDIA's large GPUs. A part that is there is not made again: PARTS names their folder, and
# words name the parts to make (all: none).
set -uo pipefail
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin} parts=${PARTS:-runs/gpu}
rbft() { "$bin/rbft" "$@"; }
python() { "$bin/python" "$@"; }
export -f rbft python
export bin
mkdir -p "$parts"
[[ -e $parts/name ]] || nvidia-smi --query-gpu=name --format=csv,noheader | head -1 >"$parts/name"
wanted=" $* " failed=0

part() { # NAME TITLE COMMAND: what the command prints becomes a section
    [[ $wanted == "  " || $wanted == *" $1 "* ]] || return 0
    [[ -e $parts/$1.md ]] && return 0
    local began=$SECONDS
    if timeout "${SECONDS_EACH:-900}" bash -c "$3" >"$parts/.$1" 2>"$parts/$1.err"; then
        { printf '\n## %s\n\n' "$2"; cat "$parts/.$1"; } >"$parts/$1.md"
    else
        failed=1
        echo "$1 failed: $(tail -n 3 "$parts/$1.err")" >&2
    fi
    rm -f "$parts/.$1"
    echo "$1: $((SECONDS - began)) s" >&2
}
full='--device cuda --pretrained random --suite shapes'
eight='--method ft --method wise-ft --method lipsum --method "lipsum mode=expected n_expected=1000" --method flyp --method kd --method ema --method l2-sp'
three='--method ft --method lipsum --method flyp'

part b16 'ViT-B/16, bf16' "rbft bench $full --model ViT-B-16 --batch 128 --steps 8 --rounds 5 --precision bf16 $eight"
part b32 'ViT-B/32, bf16' "rbft bench $full --model ViT-B-32 --batch 256 --steps 8 --rounds 5 --precision bf16 $eight"
part l14 'ViT-L/14, bf16' "rbft bench $full --model ViT-L-14 --batch 64 --steps 4 --rounds 3 --precision bf16 $three"
part tf32 'ViT-B/16, tf32' "rbft bench $full --model ViT-B-16 --batch 128 --steps 4 --rounds 3 --precision tf32 $three"
part fp32 'ViT-B/16, fp32' "rbft bench $full --model ViT-B-16 --batch 128 --steps 2 --rounds 3 --precision fp32 --method ft"
part last 'ResNet-50, channels as they are and last' "for how in '' --channels-last; do
    rbft bench $full --model RN50 --batch 128 --steps 8 --rounds 3 --precision bf16 --method ft \$how; echo; done"
part profile 'What kernels do' "python -m robustbench_ft.bench.profile"
part memory 'Memory' "for model in 'ViT-B-32 --batch 256' 'ViT-B-16 --batch 128' 'ViT-L-14 --batch 64'; do
    for precision in fp32 bf16; do python tests/memory.py --device cuda --precision \$precision --model \$model; done; done"
part precision 'Penalties in 16 bits' "python -m robustbench_ft.bench.penalties --device cuda --model ViT-B-16 --pretrained random \
    --batch 64 --steps 0 --steps 10 --steps 100 --method lipsum --method kd --method car-ft --method feature-distill --method ldifs"
part loading 'Loading' "rbft bench-loader --device cuda --rounds 5 --images 2000 --batch 128"
part compile 'Compiled' "rbft bench $full --model ViT-B-16 --batch 128 --steps 8 --rounds 2 --precision bf16 --compile --method ft --method lipsum"
part study 'The study, in two precisions' "for suite in digits shapes; do for precision in fp32 bf16; do
    rbft run --suite \$suite --seeds 0-4 --method ft --method lipsum --precision \$precision --device cuda --jobs 5 --threads 1 \
        --no-save-model --out \"$parts/runs\" >/dev/null; done; done; python docs/gpu_study.py \"$parts/runs\""

{
    printf '# On a GPU: %s\n\nMade by `make gpu` (`docs/gpu.sh`). Random weights, drawn images.\n' "$(cat "$parts/name")"
    for name in tests b16 b32 l14 tf32 fp32 last compile profile memory precision loading study; do
        if [[ -e $parts/$name.md ]]; then cat "$parts/$name.md"; fi
    done
} >docs/results/gpu.md
exit $failed

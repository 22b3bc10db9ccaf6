#!/usr/bin/env bash
# Makes docs/results/gpu.md on a machine with a GPU: `make gpu`. Random weights and drawn images, so nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
rbft() { "${BIN:-.venv/bin}/rbft" "$@"; }
methods=(--method ft --method lipsum --method "lipsum mode=expected n_expected=1000" --method flyp --method wise-ft)
methods+=(--method kd --method ema --method l2-sp)

{
    printf '# On a GPU: %s\n\nMade by `make gpu`.\n' "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)"
    for model in ViT-B-32 ViT-B-16 ViT-L-14; do
        for precision in bf16 tf32; do
            printf '\n## %s, %s\n\n' $model $precision
            rbft bench --device cuda --model $model --pretrained random --batch 64 --steps 8 --rounds 5 \
                --precision $precision "${methods[@]}"
        done
    done
    printf '\n## Compiled\n\n'
    rbft bench --device cuda --model ViT-B-16 --pretrained random --batch 64 --steps 8 --rounds 5 --precision bf16 \
        --compile --method ft --method lipsum
    printf '\n## Loading\n\n'
    rbft bench-loader --device cuda --rounds 5
} >docs/results/gpu.md

#!/usr/bin/env bash
# The seed paper's questions on `digits`: which texts, how many, how long, how strong, how many images to learn from.
# About 40 minutes on two cores; records go to runs/paper. docs/study.md tells what came out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
rbft() { "${BIN:-.venv/bin}/rbft" "$@"; }
how=(--seeds "${SEEDS:-0-2}" --threads 1 --jobs "${JOBS:-2}" --no-save-model --out "${OUT:-runs/paper}")
on=(--suite digits "${how[@]}")

rbft run "${on[@]}" --method zero-shot --method ft --method wise-ft --method lipsum --method lipsum+wise-ft
rbft run "${on[@]}" --method lipsum --set lipsum.mode=expected
for kind in fixed captions; do rbft run "${on[@]}" --method docs/study/lipsum_texts.py --set lipsum-texts.kind=$kind; done
rbft run "${on[@]}" --method lipsum --set lipsum.n_texts=1 --set lipsum.n_texts=8 --set lipsum.n_texts=640
rbft run "${on[@]}" --method lipsum --set lipsum.text_length=1 --set lipsum.text_length=3
rbft run "${on[@]}" --method lipsum --set lipsum.strength=0.1 --set lipsum.strength=0.3 --set lipsum.strength=3 --set lipsum.strength=10
for shots in 4 16; do rbft run --suite digits+shots=$shots "${how[@]}" --method zero-shot --method ft --method lipsum; done

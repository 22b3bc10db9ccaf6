#!/usr/bin/env bash
# Makes every number and picture of the README and of docs/results: `make study`. About 70 minutes on two busy cores, without
# the study of tuning.
# Two one-thread processes share the work: on small models that is faster than two threads, and repeatable to the bit.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
out=${OUT:-runs}
rbft() { "${BIN:-.venv/bin}/rbft" "$@"; }
all=(--method zero-shot --method ft --method wise-ft --method lipsum --method lp-ft --method flyp --threads 1)
logistic=(--method lp-ft --set lp-ft.probe=logistic --threads 1)  # the paper's own probe

mkdir -p docs/results
rbft run --suite shapes --suite digits --dry-run "${all[@]}" >/dev/null  # fails early
rbft run --suite shapes --method zero-shot --threads 1 --out "$out/study" # draws the images once
for suite in shapes digits; do
    rbft run --suite $suite --seeds 0-2 "${all[@]}" --out "$out/study" &
    rbft run --suite $suite --seeds 3-4 "${all[@]:2}" --out "$out/study"
    rbft run --suite $suite --seeds 0-4 "${logistic[@]}" --out "$out/study"
    wait
done
# the learning-rate grid, seed 0; lr 3e-4 is among it
rbft run --suite shapes "${all[@]:2}" --set lr=3e-5 --set lr=1e-4 --out "$out/grid" &
rbft run --suite shapes "${all[@]:2}" --set lr=3e-4 --set lr=1e-3 --out "$out/grid"
wait
# the learning rate of LP-FT's probe: its default is the best on ID validation
probes=(--method lp-ft --suite shapes --seeds 0-1 --threads 1 --out "$out/head-lr")
rbft run "${probes[@]}" --set lp-ft.head_lr=1e-4 --set lp-ft.head_lr=1e-3 --set lp-ft.head_lr=1e-2 &
rbft run "${probes[@]}" --set lp-ft.head_lr=3e-2 --set lp-ft.head_lr=1e-1 --set lp-ft.head_lr=1.0
wait

# every method: at one learning rate, and with as many random trials for each. SUITES="digits" makes the pages of one suite.
# path makes learning curves, and promptsrc needs a transformer, which the embedded image tower is not.
many=()
for method in $(rbft list methods | awk '/^  /{print $1}' | grep -vx -e path -e promptsrc); do many+=(--method "$method"); done
together=(--threads 1 --jobs 2 --no-save-model)
for suite in ${SUITES:-digits shapes}; do
    rbft run --suite $suite "${many[@]}" --seeds 0-2 "${together[@]}" --out "$out/many" >/dev/null
    page=docs/results/methods-$suite.md
    {
        printf '# Every method on `%s`, at one learning rate\n\n' $suite
        printf 'Each method with its own defaults, on the recipe of the suite: the same learning rate, steps and batches for\n'
        printf 'all, three seeds. A learning rate that suits FT need not suit a penalty, so this page does not say which method is\n'
        printf 'best; [tuning.md](tuning.md) gives each the same number of trials. Small synthetic suite, small model.\n\n'
        printf '    rbft run --suite %s --method ... --seeds 0-2        (every method of `rbft list`: docs/study.sh)\n' $suite
        printf '    rbft compare runs/%s --headlines\n\n![Every method: ID against OOD accuracy](methods-%s.png)\n\n' $suite $suite
        rbft compare "$out/many/$suite" --headlines --baseline ft --format markdown
        printf '\n## Each shift\n\n'
        rbft report "$out/many/$suite" --headlines --format markdown --figure docs/results/methods-$suite.png
    } >$page
    rbft tune --suite $suite "${many[@]}" --trials 8 --fresh-seeds 1-3 "${together[@]}" --out "$out/tuning" --format markdown >/dev/null
done
{
    printf '# Tuning with an equal budget, on the embedded suites\n\nMade by `docs/study.sh`:\n\n'
    printf '    rbft tune --suite SUITE --method ... --trials 8 --fresh-seeds 1-3        (every method of `rbft list`)\n\n'
    printf 'Eight trials of one training seed for each method: winners are the best of eight on ID validation, and what they\n'
    printf 'reach under shift is one draw. So each winner was run again with three seeds that chose nothing: the last tables,\n'
    printf 'for each of the two rules. Seconds were counted while other work was on the machine.\n'
    for suite in ${SUITES:-digits shapes}; do
        printf '\n## %s\n\n![What n trials reach, what it has under shift, and all trials](tuning-%s.png)\n\n' $suite $suite
        printf '![Winners by ID validation, over fresh seeds](fresh-best-%s.png)\n\n' $suite
        printf '![Winners with the smallest learning rate within one standard error, over fresh seeds](fresh-one-se-%s.png)\n\n' $suite
        cat "$out/tuning/$suite/embedded/tuning-0/report.md"
        cp "$out/tuning/$suite/embedded/tuning-0/report.png" docs/results/tuning-$suite.png
        cp "$out/tuning/$suite/embedded/tuning-0/fresh-best.png" docs/results/fresh-best-$suite.png
        cp "$out/tuning/$suite/embedded/tuning-0/fresh-one-se.png" docs/results/fresh-one-se-$suite.png
    done
} >docs/results/tuning.md

# distance from zero-shot against accuracy under shift: docs/diagnostics.md
moved=(--method zero-shot --method ft --method lipsum --method kd --method l2-sp --method wise-ft --method flyp)
kept=(--suite digits --seeds 0-1 --threads 1 --save-candidates --out "$out/diagnose")
rbft run "${moved[@]}" --set lr=1e-4 --set lr=1e-3 "${kept[@]}" &
rbft run --method ft+path --set lr=1e-3 "${kept[@]}"
wait
rbft diagnose "$out/diagnose" --forget shapes --threads 1 --format markdown \
    --out docs/results/diagnostics.md --figure docs/results/diagnostics.png

for suite in shapes digits; do
    rbft report "$out/study/$suite" --format markdown --baseline ft --figure docs/results/$suite.png >docs/results/$suite.md
    rbft report "$out/study/$suite" --format json >docs/results/$suite.json
done
rbft report "$out/grid/shapes" --val --format markdown --figure docs/results/frontier.png >docs/results/frontier.md
rbft report "$out/grid/shapes" --format json >docs/results/frontier.json
rbft report "$out/head-lr/shapes" --val --format markdown >docs/results/lp_ft_head_lr.md
held=(--method ft --method wise-ft --method kd --method car-ft --method l2-sp --method ema --method flyp)
{
    printf '# What a step costs, on the embedded model\n\n'
    printf '    rbft bench --threads 1 --cpu-time --rounds 7 --steps 3 --batch 64 --method ft --method wise-ft --method kd ...\n'
    printf '    rbft bench --threads 1 --cpu-time --rounds 3 --steps 3 --batch 64 --method all\n\n'
    printf 'In CPU seconds of one thread. Quote the ratios.\n\n'
    held+=(--method lipsum --method "lipsum mode=expected n_expected=1000")
    rbft bench --threads 1 --cpu-time --rounds 7 --steps 3 --batch 64 "${held[@]}"
    printf '\n## Every method\n\n'
    rbft bench --threads 1 --cpu-time --rounds 3 --steps 3 --batch 64 --method all
} >docs/results/bench.md
{
    printf '# Penalties in bfloat16 beside float32\n\n    python -m robustbench_ft.bench.penalties\n\n'
    "${BIN:-.venv/bin}/python" -m robustbench_ft.bench.penalties
    printf '\nA full-size transformer, random weights:\n\n'
    "${BIN:-.venv/bin}/python" -m robustbench_ft.bench.penalties --model ViT-B-32 --pretrained random --batch 2 \
        --steps 0 --steps 3 --method lipsum --method kd --method car-ft --method feature-distill --method ldifs \
        --method miro --method carot
} >docs/results/precision.md
# fp32 beside bf16, paired on seeds and images
for precision in fp32 bf16; do
    rbft run --suite digits --seeds 0-4 --method ft --method lipsum --precision $precision --threads 1 --out "$out/precision"
done
{
    printf '\n## The same cells in both, five seeds\n\n'
    rbft compare "$out/precision/digits" --baseline 'ft (precision=fp32)' --format markdown
} >>docs/results/precision.md
rbft bench-loader --rounds 9 >docs/results/loader.md
"${BIN:-.venv/bin}/python" -m robustbench_ft.drawing docs/domains.png --columns 14
"${BIN:-.venv/bin}/python" docs/fill.py
rbft leaderboard add "$out/study" --replace --author robustbench_ft
rbft leaderboard build
OUT=$out/paper bash docs/study/paper.sh
"${BIN:-.venv/bin}/python" docs/study/page.py --many "$out/many" --tuning "$out/tuning" --paper "$out/paper"

"""Soups, merges and mixtures of models against the official lines, on random tensors."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import golden
import numpy as np
import pytest
import torch
from golden import Array, agrees, arrays, differs
from torch import Tensor

from robustbench_ft.method import Run

State = dict[str, Tensor]
SOUPS, STOCK, LINES = "model-soups@d5398f1", "fusion_bench@54c9e8c", "LiNeS@43a7bdd"
TASK, TIES, TSV = "task_vectors@826a64c", "ties-merging@44e7891", "task_singular_vectors@a6c9718"
VRF, DAWIN = "VRF@de9647d", "dawin@310e0e1"
WEIGHTS, OUTPUTS, SHARES = 1e-5, 1e-5, 1e-6
CONFIDENCE = 1e-3  # at which the official search for a temperature ends


def module(name: str) -> Any:
    return import_module(f"robustbench_ft.methods.{name}")


def state(vectors: Mapping[str, Array], prefix: str) -> State:
    return {name: torch.from_numpy(array) for name, array in golden.tensors(vectors, f"{prefix}/").items()}


def off(ours: State, official: Mapping[str, Array], prefix: str) -> float:
    """Of the worst tensor, rel L2."""
    found = golden.tensors(official, f"{prefix}/")
    assert ours.keys() == found.keys()
    return golden.worst(golden.relative_l2(ours[name], array) for name, array in found.items())


RUN = Run(0, torch.device("cpu"))
M = arrays("merges")
START, ENDS = state(M, "start"), [state(M, f"end-{k}") for k in range(3)]
VECTORS = [{name: end[name] - START[name] for name in START} for end in ENDS]
MEMBERS = [state(M, f"greedy/member-{k}") for k in range(6)]


def held_out(member: State) -> float:
    images, labels = torch.from_numpy(M["greedy/images"]), torch.from_numpy(M["greedy/labels"])
    return float(((images @ member["w"].T + member["b"]).argmax(dim=1) == labels).float().mean())


# -- soups -------------------------------------------------------------------------------------------------------------


def test_uniform_soup_is_the_official_one() -> None:
    error = off(module("_members").mean(MEMBERS), M, "greedy/uniform")
    agrees("uniform soup of 6 classifiers, rel L2", SOUPS, error, WEIGHTS)


def test_greedy_soup_is_the_official_one() -> None:
    soup, kept = module("_members").greedy(MEMBERS, held_out)
    agrees("greedy soup of 6: members, in order", SOUPS, golden.apart(kept, M["greedy/kept"]), 0)
    agrees("greedy soup of 6 classifiers, rel L2", SOUPS, off(soup, M, "greedy/soup"), WEIGHTS)


def test_a_greedy_soup_in_the_order_of_its_members_would_be_noticed() -> None:
    soup, kept = MEMBERS[0], [0]
    for k in range(1, 6):
        trial = module("_members").mean([MEMBERS[i] for i in (*kept, k)])
        if held_out(trial) > held_out(soup):
            soup, kept = trial, [*kept, k]
    differs("greedy soup without sorting its members", SOUPS, off(soup, M, "greedy/soup"), WEIGHTS)


def test_a_tie_joins_the_restricted_mean_and_not_the_greedy_soup() -> None:
    twins = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]
    assert module("_members").greedy(twins, lambda _: 0.5)[1] == [0]
    assert module("_members").greedy(twins, lambda _: 0.5, ties=True)[1] == [0, 1]


# -- merges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_model_stock_is_the_one_of_fusion_bench(k: int) -> None:
    stock = module("model_stock").ModelStock(clip_ratio=False)
    agrees(f"model stock of {k}, rel L2", STOCK, off(stock.stock(START, ENDS[:k]), M, f"stock-{k}"), WEIGHTS)


def test_model_stock_with_one_ratio_for_all_tensors_would_be_noticed() -> None:
    stock = module("model_stock").ModelStock(clip_ratio=False)
    t = stock.ratio([torch.cat([vector[name].flatten() for name in START]) for vector in VECTORS[:2]])
    centre = module("_members").mean(ENDS[:2])
    merged = {name: t * centre[name] + (1 - t) * START[name] for name in START}
    differs("model stock with one ratio for all tensors", STOCK, off(merged, M, "stock-2"), WEIGHTS)


def test_model_stock_keeps_its_ratio_between_0_and_1() -> None:
    ratio = module("model_stock").ModelStock().ratio
    opposite = [torch.tensor([1.0, 0.1]), torch.tensor([-1.0, 0.1])]
    assert float(ratio(opposite)) == 0
    assert module("model_stock").ModelStock(clip_ratio=False).ratio(opposite) < -1
    assert float(ratio([torch.zeros(3), torch.zeros(3)])) == pytest.approx(0, abs=1e-6)
    small = [1e-6 * move for move in (torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))]
    assert float(ratio(small)) == pytest.approx(float(ratio([1e6 * move for move in small])), abs=1e-6)


MERGES: list[tuple[str, Any, str, str]] = [
    ("task arithmetic", lambda: module("task_arithmetic").TaskArithmetic(), TASK, "task-arithmetic"),
    ("ties, 20 % kept", lambda: module("ties").TIES(), TIES, "ties-20"),
    ("ties, 60 % kept", lambda: module("ties").TIES(keep=0.6), TIES, "ties-60"),
    ("tsv-m", lambda: module("tsv_m").TsvM(), TSV, "tsv-m"),
]


@pytest.mark.parametrize(("what", "make", "reference", "prefix"), MERGES, ids=[line[0] for line in MERGES])
def test_merge_of_three_is_the_official_one(what: str, make: Callable[[], Any], reference: str, prefix: str) -> None:
    agrees(f"{what}: merged vector of 3, rel L2", reference, off(make().merged(VECTORS, RUN), M, prefix), WEIGHTS)


def _per_tensor() -> State:
    ties = module("ties")
    return {n: ties.TIES().merged([{n: vector[n]} for vector in VECTORS], RUN)[n] for n in START}


def _all_agree() -> State:
    ties = module("ties")
    trimmed = ties.TIES().merged(VECTORS, RUN)
    return {
        name: torch.stack([vector[name] for vector in VECTORS]).mean(dim=0) * (t != 0) for name, t in trimmed.items()
    }


def _not_orthogonal() -> State:
    def low(moves: list[Tensor]) -> Tensor:
        if moves[0].dim() != 2:
            return torch.stack(moves).mean(dim=0)
        rank = min(moves[0].shape) // len(moves)
        cut = [torch.linalg.svd(move, full_matrices=False) for move in moves]
        return torch.stack([u[:, :rank] * s[:rank] @ v[:rank] for u, s, v in cut]).sum(dim=0)

    return {name: low([vector[name] for vector in VECTORS]) for name in START}


WRONG: list[tuple[str, Callable[[], State], str, str]] = [
    ("task arithmetic with a mean", lambda: module("_members").mean(VECTORS), TASK, "task-arithmetic"),
    ("ties with a threshold for each tensor", _per_tensor, TIES, "ties-20"),
    ("ties without the election of signs", _all_agree, TIES, "ties-20"),
    ("tsv-m without polar factors", _not_orthogonal, TSV, "tsv-m"),
]


@pytest.mark.parametrize(("what", "merged", "reference", "prefix"), WRONG, ids=[line[0] for line in WRONG])
def test_a_wrong_merge_would_be_noticed(what: str, merged: Callable[[], State], reference: str, prefix: str) -> None:
    differs(what, reference, off(merged(), M, prefix), WEIGHTS)


@pytest.mark.parametrize(("name", "settings"), [("TaskArithmetic", {}), ("TIES", {"keep": 1.0}), ("TsvM", {})])
def test_merge_of_one_is_itself(name: str, settings: dict[str, float]) -> None:
    kind = getattr(module({"TaskArithmetic": "task_arithmetic", "TIES": "ties", "TsvM": "tsv_m"}[name]), name)
    merged = kind(**settings).merged(VECTORS[:1], RUN)
    ours = module("_merges").add(START, merged, 1.0)
    assert max(golden.relative_l2(ours[n], ENDS[0][n]) for n in START) < 1e-6


def test_dare_without_dropping_is_task_arithmetic_and_drops_what_it_says() -> None:
    dare, sums = module("dare").DARE, module("task_arithmetic").TaskArithmetic().merged(VECTORS, RUN)
    whole = dare(drop=0.0).merged(VECTORS, RUN)
    assert all(torch.equal(whole[name], sums[name]) for name in START)
    ones = [{"w": torch.ones(100, 100)}]
    thinned = dare(drop=0.75).merged(ones, RUN)["w"]
    assert set(thinned.unique().tolist()) == {0.0, 4.0}
    assert float((thinned == 0).float().mean()) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_lines_scales_as_the_official_code_does(alpha: float) -> None:
    ours = module("lines").scaled(state(M, "lines/start"), state(M, "lines/end"), alpha)
    agrees(f"LiNeS at alpha {alpha}, worst tensor, rel L2", LINES, off(ours, M, f"lines/alpha-{alpha}"), WEIGHTS)


def test_lines_with_the_outside_tuned_would_be_noticed() -> None:
    ours, end = module("lines").scaled(state(M, "lines/start"), state(M, "lines/end"), 0.3), state(M, "lines/end")
    ours["model.visual.proj"] = end["model.visual.proj"]
    differs("LiNeS with a projection that keeps all", LINES, off(ours, M, "lines/alpha-0.3"), WEIGHTS)


def test_a_stage_is_a_layer_and_its_blocks_are_not() -> None:
    names = [f"model.visual.trunk.stages.{stage}.{block}.conv.weight" for stage in range(3) for block in range(2)]
    found = module("lines").depths([*names, "model.visual.trunk.stem.conv.weight", "head"])
    assert list(found.values()) == [0, 0, 0.5, 0.5, 1, 1]


# -- mixtures of outputs -----------------------------------------------------------------------------------------------

X = arrays("mixtures")
ZS, FT, LABELS = (torch.from_numpy(X[name]) for name in ("zs", "ft", "labels"))


@pytest.mark.parametrize("name", ["zs", "ft"])
def test_confidence_at_the_temperature_is_the_accuracy(name: str) -> None:
    t = module("_pair").temperature(torch.from_numpy(X[name]), LABELS)
    confidence = (torch.from_numpy(X[name]) / t).softmax(dim=-1).amax(dim=-1).mean()
    agrees(f"{name}: mean confidence at T and accuracy", VRF, golden.apart(confidence, X[f"accuracy/{name}"]), 1e-6)
    agrees(f"{name}: T, rel", VRF, golden.relative(t, X[f"T/{name}"]), 5 * CONFIDENCE)


def test_a_temperature_of_the_lowest_nll_would_be_noticed() -> None:
    grid = torch.linspace(0.2, 6, 500)
    nll = torch.stack([torch.nn.functional.cross_entropy(FT / t, LABELS) for t in grid])
    differs("T of the lowest NLL", VRF, golden.relative(grid[nll.argmin()], X["T/ft"]), 5 * CONFIDENCE)


def test_temperatures_that_cannot_be_reached_are_the_ends() -> None:
    logits, wrong = torch.eye(3) * 5, torch.tensor([1, 2, 0])
    assert module("_pair").temperature(logits, torch.arange(3)) == module("_pair").COLDEST
    assert module("_pair").temperature(logits, wrong) == module("_pair").HOTTEST


def near(features: Tensor) -> Tensor:
    vrf = module("vrf")
    unit = partial(torch.nn.functional.normalize, dim=-1)
    known = unit(torch.from_numpy(X["vrf/train"]))[torch.from_numpy(X["vrf/ft_right"] & ~X["vrf/zs_right"])]
    return vrf.distances(unit(features), known, round(1000 * len(known) / len(X["vrf/train"])))


def test_vrf_weighs_as_the_official_code_does() -> None:
    distance = near(torch.from_numpy(X["vrf/test"]))
    agrees("VRF: squared distance to the k-th neighbour", VRF, golden.apart(distance, X["vrf/distance"]), OUTPUTS)
    weight = module("vrf").weights(distance, 1.5, 0.6)
    agrees("VRF: weights", VRF, golden.apart(weight, X["vrf/w"]), OUTPUTS)
    n, heat = len(weight), [float(X[f"T/{name}"]) for name in ("zs", "ft")]
    mixed = module("_pair").mixed(ZS[:n] / heat[0], FT[:n] / heat[1], weight[:, None]).exp()
    agrees("VRF: probabilities", VRF, golden.apart(mixed, X["vrf/probs"]), OUTPUTS)
    wrong = module("vrf").weights(distance.sqrt(), 1.5, 0.6)
    differs("VRF with a distance that is not squared", VRF, golden.apart(wrong, X["vrf/w"]), OUTPUTS)


def test_vrf_that_repaired_nothing_is_zero_shot() -> None:
    vrf = module("vrf")
    assert torch.equal(vrf.weights(vrf.distances(torch.ones(2, 4), torch.ones(0, 4), 0), 1.5, 0.6), torch.zeros(2))


@pytest.mark.parametrize("alpha", [0.3, 0.7])
def test_output_ensemble_mixes_as_the_official_code_does(alpha: float) -> None:
    mixed = module("_pair").mixed(ZS, FT, torch.tensor(alpha)).exp()
    agrees(f"output ensemble at alpha {alpha}", VRF, golden.apart(mixed, X[f"ose/{alpha}"]), OUTPUTS)
    logits = ((1 - alpha) * ZS + alpha * FT).softmax(dim=-1)
    differs(f"output ensemble of logits at alpha {alpha}", VRF, golden.apart(logits, X[f"ose/{alpha}"]), OUTPUTS)


# -- DaWin -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1])
def test_dawin_finds_the_official_coefficients_and_components(offset: int) -> None:
    dawin, mixtures = module("dawin"), module("_beta_mixture")
    before, tuned = dawin.entropy(ZS / 0.96), dawin.entropy(FT / 1.0066)
    agrees("DaWin: entropies", DAWIN, golden.apart(before, X["dawin/zs_entropy"]), OUTPUTS)
    shift = dawin.offsets(before, tuned) if offset else (0.0, 2.0)
    coefficients = dawin.coefficients(before, tuned, *shift)
    agrees(f"DaWin: lambda, offset {offset}", DAWIN, golden.apart(coefficients, X[f"dawin/coef/{offset}"]), OUTPUTS)
    values = X[f"dawin/coef/{offset}"].astype(np.float64)  # the official ones: the fit starts from k-means of them
    found = mixtures.fit(values, 3, 1)
    official = X[f"dawin/beta/{offset}"]
    order, theirs = found.means.argsort(), (official[:, 0] / official.sum(axis=1)).argsort()  # starts that tie
    shares = golden.apart(found.shares[order], X[f"dawin/shares/{offset}"][theirs])
    agrees(f"DaWin: shares, offset {offset}", DAWIN, shares, SHARES)
    pairs = golden.relative(np.stack([found.a, found.b], axis=1)[order], official[theirs])
    agrees(f"DaWin: Betas, offset {offset}, rel", DAWIN, pairs, SHARES)
    component = X[f"dawin/component/{offset}"]
    assert (order.argsort()[found.component(values)] == theirs.argsort()[component]).all()


def test_dawin_without_its_offset_would_be_noticed() -> None:
    dawin = module("dawin")
    plain = dawin.coefficients(dawin.entropy(ZS / 0.96), dawin.entropy(FT / 1.0066), 0.0, 2.0)
    differs("DaWin without the offset", DAWIN, golden.apart(plain, X["dawin/coef/1"]), OUTPUTS)

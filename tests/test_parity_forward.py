"""Everything short of training, against the official implementations: features, heads, pixels, schedules, metrics."""

import hashlib
from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from crops import resized_crop
from golden import TASK, VECTORS, Array, agrees, arrays, differs, read, statistics
from PIL import Image
from torch import Tensor

from robustbench_ft import metrics
from robustbench_ft.clip import Clip
from robustbench_ft.data import FileImages, Predictions, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.pixels.augment import keys_bicubic
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import predict
from robustbench_ft.recipe import Recipe

FLAX, LIPSUM, WISE = "HF Flax CLIP, as in Lipsum-FT", "lipsum-ft@1331873", "wise-ft@58b7a4b"
OPEN_CLIP, FLYP, GIUNG2, TEXTBOOK = "open_clip 3.3.0", "FLYP@215d5bb", "giung2@c8560fd", "textbook definition"
FEATURES, SCHEDULE, METRICS, LEVEL = 1e-5, 1e-6, 1e-5, 1 / (255 * 0.2613)  # LEVEL: one of uint8, normalised


@pytest.fixture(scope="module")
def clip() -> Clip:
    return golden.model()


def pixels(clip: Clip, images: Array) -> Tensor:
    loader = Loader(clip, golden.split(images))
    return loader.normalise(loader.read(range(len(loader.split))))


def test_vectors_are_what_the_manifest_says() -> None:
    stored = {path.name for path in VECTORS.iterdir()} - {"README.md", "manifest.json"}
    assert {name: hashlib.sha256((VECTORS / name).read_bytes()).hexdigest() for name in stored} == read("manifest")


# -- towers, tokens, heads ---------------------------------------------------------------------------------------------


def test_pixels_of_the_models_size_are_only_normalised(clip: Clip) -> None:
    forward = arrays("forward")
    error = golden.apart(pixels(clip, forward["images"]), forward["pixel_values"])
    agrees("normalised pixels, abs", FLAX, error, FEATURES)


@torch.no_grad()
def test_image_features_are_the_official_ones(clip: Clip) -> None:
    forward = arrays("forward")
    images = pixels(clip, forward["images"])
    raw = clip.model.encode_image(images)
    agrees("image features, abs", FLAX, golden.apart(raw, forward["image_features"]), FEATURES)
    error = golden.apart(raw, forward["image_features_openai_class"])
    agrees("image features, abs", "OpenAI's CLIP class", error, FEATURES)
    unit = golden.apart(clip.encode_image(images), forward["image_features_normalised"])
    agrees("unit image features, abs", FLAX, unit, FEATURES)


@torch.no_grad()
def test_another_activation_would_be_noticed() -> None:
    forward, gelu = arrays("forward"), golden.model(quick_gelu=False)
    error = golden.apart(gelu.encode_image(pixels(gelu, forward["images"])), forward["image_features_normalised"])
    differs("GELU for QuickGELU: unit image features, abs", FLAX, error, FEATURES)


@torch.no_grad()
@pytest.mark.parametrize("length", ["unpadded", "pad77"])
def test_random_texts_need_no_padding(clip: Clip, length: str) -> None:
    forward = arrays("forward")
    ours = clip.encode_text(torch.from_numpy(forward[f"tokens_random_{length}"]).long())
    error = golden.apart(ours, unit(forward["text_features_random"]))
    agrees(f"unit features of random texts, {length}, abs", FLAX, error, FEATURES)


@torch.no_grad()
def test_captions_give_the_official_text_features(clip: Clip) -> None:
    forward, tokens = arrays("forward"), clip.tokenize(read("texts")["captions"])
    padded = forward["tokens_caption_pad77"]
    assert tokens.shape[1] < padded.shape[1]
    assert np.array_equal(np.pad(tokens, ((0, 0), (0, padded.shape[1] - tokens.shape[1]))), padded)
    for ids in (tokens, torch.from_numpy(padded).long()):
        error = golden.apart(clip.encode_text(ids), unit(forward["text_features_caption"]))
        agrees(f"unit features of captions, {ids.shape[1]} tokens, abs", FLAX, error, FEATURES)


def test_token_ids_are_open_clips(clip: Clip) -> None:
    for case in read("texts")["tokenizer_cases"]:
        [row] = clip.tokenize([case["text"]]).tolist()
        assert row == case["open_clip"], case["text"]
        assert not case["agree"][0] or row == case["openai_clip_as_in_wiseft_flyp"], case["text"]


def test_zero_shot_head_is_the_official_one_in_both_conventions() -> None:
    official, clip = arrays("zeroshot"), golden.model()
    clip.start_from_zero_shot(TASK, "unit")
    agrees("zero-shot head 'unit', abs", LIPSUM, golden.apart(clip.head, official["lipsum_cls"].T), FEATURES)
    clip.start_from_zero_shot(TASK, "scaled")
    error = golden.relative_l2(clip.head, official["wiseft_head_weight"])
    agrees("zero-shot head 'scaled', rel L2", WISE, error, FEATURES)
    assert clip.bias is not None
    assert np.array_equal(clip.bias.detach(), official["wiseft_head_bias"])


@torch.no_grad()
def test_prompt_embeddings_are_the_official_ones(clip: Clip) -> None:
    texts = [template.format(name) for template in TASK.templates for name in TASK.classes]
    ours = clip.encode_text(clip.tokenize(texts)).view(len(TASK.templates), len(TASK.classes), -1)  # [T, K, D]
    error = golden.apart(ours.permute(2, 0, 1), arrays("zeroshot")["lipsum_raw"])
    agrees("unit embeddings of all prompts, abs", LIPSUM, error, FEATURES)


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# -- pixels from files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """PNG and JPEG files of many sizes and modes."""
    folder = tmp_path_factory.mktemp("photos")
    files = {k.removeprefix("file/"): v.tobytes() for k, v in arrays("preprocess").items() if k.startswith("file/")}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    del files["png16"]  # refused, see below
    return Split("photos", FileImages(folder, tuple(files)), np.zeros(len(files), np.int64), tuple(files))


def test_evaluation_pixels_at_224_are_the_official_ones(photos: Split) -> None:
    golden_pixels, loader = arrays("preprocess"), Loader(golden.model(image_size=224), photos)
    ours = dict(zip(photos.ids, loader.normalise(loader.read(range(len(photos)))).numpy(), strict=True))
    windows = {"crop": np.s_[:, 100:116, 60:76], "corner": np.s_[:, :4, -4:], "grid": np.s_[:, ::16, ::16]}
    errors = {
        name: max(golden.apart(x[window], golden_pixels[f"{place}/{name}"]) for place, window in windows.items())
        for name, x in ours.items()
    }
    means = [golden.apart(x.mean((1, 2), np.float64), golden_pixels[f"mean/{name}"]) for name, x in ours.items()]
    jpeg = {name for name in errors if "jpeg" in name}
    lossless = golden.worst(error for name, error in errors.items() if name not in jpeg)
    agrees("pixels at 224 of 8-bit PNG files, abs", f"{OPEN_CLIP}, wise-ft@58b7a4b", lossless, 0.0)
    lossy = golden.worst(errors[name] for name in jpeg)
    agrees("pixels at 224 of JPEG files, abs", f"{OPEN_CLIP}, wise-ft@58b7a4b", lossy, LEVEL)
    agrees("channel means at 224, all files, abs", f"{OPEN_CLIP}, wise-ft@58b7a4b", golden.worst(means), 1e-4)


def test_sixteen_bits_are_refused_where_the_official_transform_shows_white(photos: Split) -> None:
    """Pillow clips every level above 255, so open_clip's pixels of such a file hold its maximum almost everywhere."""
    assert isinstance(photos.images, FileImages)
    crop, others = (arrays("preprocess")[f"crop/{name}"] for name in ("png16", "rgb_small"))
    assert (crop == crop.max(axis=(1, 2), keepdims=True)).mean() > 0.9 > (others == others.max()).mean()
    with pytest.raises(RbftError, match="png16: I;16 has more than 8 bits a pixel, which would be clipped to white"):
        FileImages(photos.images.root, ("png16",)).read([0])


@pytest.mark.parametrize(("name", "tolerance"), [("rgb_small", 0.0), ("jpeg", LEVEL)])
def test_evaluation_pixels_at_32_are_the_official_ones(photos: Split, clip: Clip, name: str, tolerance: float) -> None:
    loader = Loader(clip, photos)
    [ours] = loader.normalise(loader.read([photos.ids.index(name)])).numpy()
    error = golden.apart(ours, arrays("preprocess")[f"full32/{name}"])
    agrees(f"pixels at 32, {name}, abs", OPEN_CLIP, error, tolerance)


def test_wise_ft_crops_are_pillows(photos: Split) -> None:
    loader, errors = Loader(golden.model(image_size=224), photos), list[Array]()
    for index in range(len(photos)):
        [ours] = loader.augmented([index], "crop", torch.Generator().manual_seed(0))
        errors.append(np.abs(ours.numpy() - resized_crop(photos, index, 224)))
    reference = "torchvision on Pillow images"
    agrees("training crops, levels of 255, worst pixel", reference, golden.worst(float(e.max()) for e in errors), 2)
    agrees("training crops, levels of 255, mean", reference, golden.worst(float(e.mean()) for e in errors), 0.05)


@pytest.mark.parametrize(("side", "scale"), [(800, 2), (1600, 4), (3200, 8)])
def test_wise_ft_crops_of_large_jpegs_are_pillows_to_a_few_levels(side: int, scale: int, tmp_path: Path) -> None:
    """They are decoded at a part of their side; the official crop is that of the full decode. Noise on soft shapes."""
    rng = np.random.default_rng(side)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC), np.float64)
    noisy = np.clip(soft + rng.normal(0, 20, soft.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "large.jpg", quality=90)
    photo = Split("large", FileImages(tmp_path, ("large.jpg",)), np.zeros(1, np.int64), ("large",))
    [ours] = Loader(golden.model(image_size=224), photo).augmented([0], "crop", torch.Generator().manual_seed(0))
    error = np.abs(ours.numpy() - resized_crop(photo, 0, 224))
    what, reference = f"training crops of JPEGs decoded at 1/{scale}, levels of 255", "torchvision on Pillow images"
    agrees(f"{what}, worst pixel", reference, float(error.max()), 40)
    agrees(f"{what}, mean", reference, float(error.mean()), 2)


def test_lipsum_crops_are_resized_as_tensorflow_does(photos: Split) -> None:
    """Its evaluation crop, the central 7/8 of the shorter side, goes through the same bicubic without anti-aliasing."""
    errors: list[float] = []
    for index, name in enumerate(photos.ids):
        pixels = np.array(photos.images.read([index])[0].convert("RGB"))
        side = int(0.875 * min(pixels.shape[:2]))
        top, left = ((n - side + 1) // 2 for n in pixels.shape[:2])
        patch = torch.from_numpy(pixels[top : top + side, left : left + side]).permute(2, 0, 1)
        ours = keys_bicubic(patch, 224)[:, ::32, ::32].permute(1, 2, 0)
        errors.append(golden.apart(ours, arrays("preprocess")[f"lipsum_tf/grid/{name}"].clip(0, 255)))
    agrees("crops resized without anti-aliasing, levels of 255", LIPSUM, golden.worst(errors), 0.53)  # half by rounding


# -- learning rates ----------------------------------------------------------------------------------------------------


def schedule_error(recipe: Recipe, total: int, case: dict[str, list[float]]) -> float:
    """Relative to the peak: at the end of a cosine, float32 leaves few digits of the value itself."""
    return golden.apart([recipe.lr_at(int(step), total) for step in case["steps"]], case["values"]) / recipe.lr


def test_lipsum_schedule_is_optax_warmup_cosine() -> None:
    errors: list[float] = []
    for case in read("schedules")["lipsum_optax"].values():
        recipe = Recipe(lr=case["lr"], warmup_fraction=0.1, schedule="lipsum")
        errors.append(schedule_error(recipe, case["ni"], case))
    agrees(f"learning rates, schedule 'lipsum', {len(errors)} runs, of peak", LIPSUM, max(errors), SCHEDULE)


@pytest.mark.parametrize(("family", "reference"), [("wiseft_cosine_lr", WISE), ("flyp_cosine_lr", FLYP)])
def test_wise_ft_schedule_is_cosine_lr(family: str, reference: str) -> None:
    errors: list[float] = []
    for case in read("schedules")[family].values():
        if not case.get("min_lr"):
            recipe = Recipe(lr=case["base_lr"], warmup_steps=case["warmup_length"], schedule="wise-ft")
            errors.append(schedule_error(recipe, case["steps_total"], case))
    agrees(f"learning rates, schedule 'wise-ft', {len(errors)} runs, of peak", reference, max(errors), SCHEDULE)


def test_a_schedule_that_counts_from_one_would_be_noticed() -> None:
    case = read("schedules")["lipsum_optax"]["20_1e-05"]
    recipe = Recipe(lr=case["lr"], warmup_fraction=0.1, schedule="lipsum")
    late = {"steps": [step + 1 for step in case["steps"]], "values": case["values"]}
    differs("learning rates one step off, of peak", LIPSUM, schedule_error(recipe, case["ni"], late), SCHEDULE)


# -- metrics -----------------------------------------------------------------------------------------------------------


class Recorded(Clip):
    """Gives recorded logits in their order, whatever it is shown."""

    def __init__(self, logits: Array) -> None:
        tiny = golden.model()
        super().__init__(tiny.model, tiny.tokenizer, tiny.config)
        self.left = torch.from_numpy(logits)

    def logits(self, images: Tensor) -> Tensor:
        now, self.left = self.left.split([len(images), len(self.left) - len(images)])
        return now


def predictions(logits: Array, labels: Array) -> Predictions:
    """What `predict` stores of a model with these logits."""
    return predict(Recorded(logits), golden.split(np.zeros((len(labels), 32, 32, 3), np.uint8), labels))["final"]


def test_metrics_of_logits_are_the_official_ones() -> None:
    official = arrays("metrics")
    ours = predictions(official["logits"], official["labels"])
    agrees("accuracy, abs", LIPSUM, golden.apart(metrics.accuracy(ours), official["lipsum/acc_mean"]), 1e-6)
    agrees("NLL, rel", LIPSUM, golden.relative(metrics.nll(ours), official["lipsum/nll_log_input_mean"]), 1e-6)
    each = golden.apart(-ours.log_prob, official["lipsum/nll_log_input_none"])
    agrees("NLL of each example, abs", LIPSUM, each, METRICS)
    for bins in (10, 15):
        error = golden.apart(metrics.ece(ours, bins), official[f"giung2_ece_{bins}"])
        agrees(f"ECE, {bins} bins, abs", GIUNG2, error, METRICS)


def test_calibration_of_many_classes_is_the_textbooks() -> None:
    vector = statistics("calibration_multiclass")
    probs, expected = np.array(vector["inputs"]["probs"], np.float32), vector["expected"]
    ours = predictions(np.log(probs), np.array(vector["inputs"]["y"]))
    found = {
        "accuracy": metrics.accuracy(ours), "nll": metrics.nll(ours), "brier_sum": metrics.brier(ours),
        "ece15_equal_width": metrics.ece(ours, 15), "ece10_equal_width": metrics.ece(ours, 10),
    }  # fmt: skip
    for name, value in found.items():
        agrees(f"{name}, rel", TEXTBOOK, golden.relative(value, expected[name]), vector["tol"]["rtol"])


def binary(name: str) -> Predictions:
    """Predictions with the confidences of a vector, in double precision: its bin edges are exact numbers."""
    inputs = statistics(name)["inputs"]
    confidence: Array = np.array(inputs["confidence"], np.float64)
    sum_sq: Array = confidence**2
    hit = np.array(inputs["correct"]).astype(np.int64)
    return Predictions(
        ids=tuple(map(str, range(len(hit)))), label=np.ones_like(hit), prediction=hit, confidence=confidence,
        log_prob=np.log(confidence), sum_sq=sum_sq, top_classes=hit[:, None], top_probs=confidence[:, None],
    )  # fmt: skip


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    vector = statistics("ece_saturated")
    ours = metrics.ece(binary("ece_saturated"), vector["params"]["n_bins"])
    agrees("ECE, saturated, abs", TEXTBOOK, golden.apart(ours, vector["expected"]["ece10"]), 1e-9)
    wrong = golden.apart(ours, vector["expected"]["torchmetrics_1_9_0_value_WRONG"])
    differs("torchmetrics' extra bin for confidence 1: ECE, abs", TEXTBOOK, wrong, METRICS)


def test_bins_are_closed_on_the_right() -> None:
    vector = statistics("ece_bin_edges")
    ours = metrics.ece(binary("ece_bin_edges"), vector["params"]["n_bins"])
    error = golden.relative(ours, vector["expected"]["ece4_right_closed"])
    agrees("ECE, confidences on bin edges, rel", TEXTBOOK, error, vector["tol"]["rtol"])

"""The loader: batches decoded ahead, JPEGs decoded smaller, and evaluation pixels that are decoded once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import coded
import numpy as np
import pytest
import tiny
import torch
from crops import resized_crop
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from robustbench_ft import cache, checksums, model_ref
from robustbench_ft import clip as clips
from robustbench_ft.clip import Clip
from robustbench_ft.data import FileImages, Split
from robustbench_ft.errors import RbftError
from robustbench_ft.method import Run, TrainSet
from robustbench_ft.pixels import kept
from robustbench_ft.pixels.augment import smooth_bicubic
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.predict import predict
from robustbench_ft.prompts import Task
from robustbench_ft.recipe import Augment, Recipe
from robustbench_ft.train import ImageBatches, indices_at

N = 40
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clip(tiny_model: str) -> Clip:
    found = clips.load(model_ref.resolve(tiny_model, None))
    found.start_from_zero_shot(Task(("red page", "blue page"), ("a photo of a {}",)))
    return found


@pytest.fixture
def split(tmp_path: Path) -> Split:
    names = tuple(f"{k:03d}.jpg" for k in range(N))
    for k, name in enumerate(names):
        coded.write(tmp_path / "files" / name, k, side=64)
    return Split("files", FileImages(tmp_path / "files", names), np.arange(N) % 2, names)


def whole(loader: Loader, size: int = 16) -> torch.Tensor:
    return torch.cat([pixels for _, pixels in loader.chunks(size)])


def entries() -> list[cache.Entry]:
    return [entry for entry in cache.entries() if entry.kind == kept.KIND]


def left_over(own_cache: Path) -> list[Path]:
    return [path for path in own_cache.rglob("*") if path.suffix == ".partial" or path.name.startswith(".")]


# -- training ----------------------------------------------------------------------------------------------------------


def test_large_jpegs_are_decoded_smaller_for_smoothed_crops_only(
    tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph-like file of 800 x 600 pixels for a model of 32: the DCT gives an eighth, near the same picture."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    coarse.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=90)
    split = Split("large", FileImages(tmp_path, ("large.jpg",)), np.zeros(1, np.int64), ("large",))
    sizes: list[tuple[int, int]] = []
    draft = JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda self, mode, size: sizes.append(size) or draft(self, mode, size))
    loader = Loader(clip, split)
    [ours] = loader.augmented([0], "crop", torch.Generator().manual_seed(0))
    assert sizes == [(100, 75)]
    assert np.abs(ours.numpy() - resized_crop(split, 0, 32)).mean() < 2
    loader.augmented([0], "crop-flip", torch.Generator().manual_seed(0))
    assert len(sizes) == 1


@pytest.mark.parametrize("augment", ["none", "shift", "crop", "crop-flip"])
def test_batches_begun_ahead_are_those_that_would_be_read(clip: Clip, split: Split, augment: Augment) -> None:
    recipe = Recipe(steps=7, batch=16, augment=augment)
    data, run = TrainSet(split, split, Task(("a", "b"), ("{}",))), Run(3, torch.device("cpu"))
    source, plain = ImageBatches(clip, data), Loader(clip, split, workers=2)
    for step in (0, 1, 2, 5, 6):  # also when steps are left out, as after a resume
        indices = indices_at(step, N, recipe, run)
        batch = source.batch(clip, indices, step, recipe, run)
        drawn = plain.augmented(indices, recipe.augment, run.generator("augment", step))
        assert torch.equal(batch.images, plain.normalise(drawn))
        assert batch.labels.tolist() == [split.labels[i] for i in indices]
        assert set(source.begun) <= {step + 1, step + 2} & set(range(7))
    assert not source.begun


LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def mixed(folder: Path) -> Split:
    """A JPEG, one whose colour is stored at half its resolution, a grey one, a CMYK one, and a PNG."""
    image = coded.picture(5, side=64)
    kinds = {"rgb.jpg": "RGB", "half.jpg": "RGB", "grey.jpg": "L", "cmyk.jpg": "CMYK", "rgb.png": "RGB"}
    for name, mode in kinds.items():
        subsampling = 2 if name == "half.jpg" else 0  # a PNG ignores it
        image.convert(mode).save(folder / name, subsampling=subsampling)
    return Split("mixed", FileImages(folder, tuple(kinds)), np.zeros(len(kinds), np.int64), tuple(kinds))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ],
)
@pytest.mark.parametrize("augment", ["crop", "crop-flip"])
def test_files_decoded_together_on_a_device_are_those_decoded_one_by_one(
    clip: Clip, augment: Augment, device: str, tmp_path: Path
) -> None:
    """Of colour at half the resolution, nvJPEG may make other pixels than libjpeg; how bright they are stays."""
    split = mixed(tmp_path)
    alone = Loader(clip, split).augmented(range(5), augment, torch.Generator().manual_seed(2))
    together = Loader(clip, split, gpu_decode=True)
    together.device = torch.device(device)
    found = together.augmented(range(5), augment, torch.Generator().manual_seed(2))
    assert found.device.type == device
    apart = {name: ours.cpu().float() - theirs for name, ours, theirs in zip(split.ids, found, alone, strict=True)}
    apart["half.jpg"] = (apart["half.jpg"] * LUMA).sum(dim=0) if device != "cpu" else apart["half.jpg"]
    assert max(float(difference.abs().max()) for difference in apart.values()) <= (0 if device == "cpu" else 6)
    broken = tmp_path / "rgb.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(RbftError, match=r"cannot decode .*rgb\.jpg"):
        together.augmented(range(4), augment, torch.Generator())


def test_smoothing_in_integers_is_smoothing_in_floats_to_a_level() -> None:
    patch = torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert (smooth_bicubic(patch, 32, True).int() - smooth_bicubic(patch, 32, False).int()).abs().max() <= 1


def test_a_file_that_cannot_be_decoded_ends_the_batch_with_its_path(clip: Clip, split: Split, tmp_path: Path) -> None:
    broken = tmp_path / "files" / "007.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    loader = Loader(clip, split)
    for augment in ("none", "crop", "crop-flip"):
        with pytest.raises(RbftError, match=r"cannot decode .*files/007\.jpg: .*; replace the file, nothing is skip"):
            loader.augmented(range(N), augment, torch.Generator())  # pyright: ignore[reportArgumentType]


# -- evaluation: decoded once ------------------------------------------------------------------------------------------


def test_kept_pixels_are_those_of_the_files(clip: Clip, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    first = whole(Loader(clip, split))
    assert torch.equal(first, Loader(clip, split).read(range(N)))
    assert [entry.text for entry in entries()] == ["files, 40 images of 32 pixels"]
    monkeypatch.setattr(FileImages, "raw", lambda self, index: pytest.fail("decoded again"))
    for size in (16, 7, N):
        assert torch.equal(whole(Loader(clip, split), size), first)


def test_predictions_are_the_same_with_and_without_it(clip: Clip, split: Split, own_cache: Path) -> None:
    found = [predict(clip, split)["final"] for _ in range(2)]
    assert entries()
    cache.forget(entries()[0].path)
    assert not entries()
    found.append(predict(clip, split, workers=1)["final"])
    for other in found[1:]:
        assert (found[0].log_prob == other.log_prob).all()
        assert (found[0].top_classes == other.top_classes).all()


def test_a_changed_file_is_decoded_again(clip: Clip, split: Split, tmp_path: Path) -> None:
    before = whole(Loader(clip, split))
    coded.write(tmp_path / "files" / "005.jpg", 999, side=64)
    after = whole(Loader(clip, split))
    assert not torch.equal(before[5], after[5])
    assert torch.equal(before[6:], after[6:])


def test_another_size_or_border_is_another_entry(clip: Clip, split: Split, tmp_path: Path) -> None:
    whole(Loader(clip, split))
    assert isinstance(split.images, FileImages)
    framed = replace(split, images=replace(split.images, border=8))
    assert not torch.equal(whole(Loader(clip, framed)), whole(Loader(clip, split)))
    assert len(entries()) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"\x80" * len(b)])
def test_a_damaged_entry_is_made_again(clip: Clip, split: Split, damage: Callable[[bytes], bytes]) -> None:
    first = whole(Loader(clip, split))
    [entry] = entries()
    entry.path.write_bytes(damage(entry.path.read_bytes()))
    assert torch.equal(whole(Loader(clip, split)), first)
    assert entries()[0].size == entry.size


def test_a_flipped_bit_is_seen_when_it_is_read(
    clip: Clip, split: Split, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anywhere in the file: the header, pixels, check sums. What the model sees is right all the same."""
    monkeypatch.setattr(checksums, "BLOCK", 1 << 13)
    first = whole(Loader(clip, split))
    [entry] = entries()
    sound = entry.path.read_bytes()
    for place in (8, 30, 200, len(sound) // 2, len(sound) - 100, len(sound) - 30, len(sound) - 3):
        content = bytearray(sound)
        content[place] ^= 4
        entry.path.write_bytes(content)
        capsys.readouterr()
        assert torch.equal(whole(Loader(clip, split)), first), place
        said = capsys.readouterr().err.splitlines()
        assert said == [f"  cache: {entry.path} was damaged, or of an earlier version: it is made again"], place
        assert torch.equal(whole(Loader(clip, split)), first)
        assert entry.path.read_bytes() == sound, place  # made again by now


def test_an_evaluation_that_stops_keeps_nothing(clip: Clip, split: Split, own_cache: Path) -> None:
    reading = Loader(clip, split).chunks(16)
    next(reading)
    assert left_over(own_cache)
    reading.close()
    assert not entries()
    assert not left_over(own_cache)


def test_two_processes_do_not_disturb_each_other(clip: Clip, split: Split, own_cache: Path) -> None:
    """One fills, the other decodes for itself; both see the same pixels."""
    first = Loader(clip, split).chunks(16)
    parts = [next(first)[1]]
    assert torch.equal(whole(Loader(clip, split)), Loader(clip, split).read(range(N)))
    assert not entries()  # the second one left it to the first
    parts += [pixels for _, pixels in first]
    assert len(entries()) == 1
    assert torch.equal(torch.cat(parts), whole(Loader(clip, split)))


def test_a_killed_process_leaves_nothing_in_the_way(clip: Clip, split: Split, own_cache: Path, tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from pathlib import Path
from robustbench_ft.pixels import kept
with kept.filling("key", (4, 3, 8, 8), {{"what": "x"}}) as add:
    add(np.zeros((1, 3, 8, 8), np.uint8)); print("half", flush=True); sys.stdin.read()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"half\n"
    assert cache.sweep() == 0  # it is at work
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert left_over(own_cache)
    with kept.filling("key", (4, 3, 8, 8), {"what": "x"}) as add:
        add(np.ones((4, 3, 8, 8), np.uint8))
    found = kept.stored("key", (4, 3, 8, 8))
    assert found is not None
    assert (found.pixels == 1).all()
    assert not left_over(own_cache)


def test_what_a_killed_process_left_is_swept(own_cache: Path) -> None:
    (own_cache / "pixels").mkdir(parents=True)
    (own_cache / "pixels" / "abc.partial").write_bytes(b"1" * 100)
    (own_cache / "pixels" / ".abc-new.npy").write_bytes(b"1" * 10)
    os.utime(own_cache / "pixels" / ".abc-new.npy", (0, time.time() - 2 * cache.LEFTOVER))
    (own_cache / "pixels" / ".fresh.npy").write_bytes(b"1")
    mine = own_cache / "pixels" / f".{os.getpid()}.0.abc.npy"  # being written, under a clock that jumped
    mine.write_bytes(b"1")
    os.utime(mine, (0, time.time() - 2 * cache.LEFTOVER))
    (own_cache / "pixels" / "alone.json").write_text("{}")
    assert cache.sweep() == 112
    assert {path.name for path in own_cache.rglob("*.npy")} == {".fresh.npy", mine.name}


def test_a_full_disk_stops_no_evaluation(
    clip: Clip, split: Split, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = kept.np.lib.format.write_array_header_1_0

    def full(file: object, header: dict[str, object]) -> None:
        write(file, header)  # pyright: ignore[reportArgumentType]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.np.lib.format, "write_array_header_1_0", full)
    assert torch.equal(whole(Loader(clip, split)), Loader(clip, split).read(range(N)))
    said = capsys.readouterr().err
    assert f"cache: cannot keep pixels in {own_cache / 'pixels'}: No space left on device; going on without" in said
    assert not entries()
    assert not left_over(own_cache)


@pytest.mark.parametrize(("limit", "says"), [("100KB", "limit: 100 KiB"), ("0", "limit: 0 B")])
def test_pixels_beyond_the_limit_are_not_kept(
    clip: Clip, split: Split, limit: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RBFT_CACHE_LIMIT", limit)
    whole(Loader(clip, split))
    assert f"cache: 120 KiB of pixels do not fit ({says}); decoding every time (RBFT_CACHE_LIMIT raises it)" in (
        capsys.readouterr().err
    )
    assert not entries()


def test_large_entries_are_announced(
    clip: Clip, split: Split, own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole(Loader(clip, split))
    assert "keeping" not in capsys.readouterr().err
    cache.forget(entries()[0].path)
    monkeypatch.setattr(kept, "ANNOUNCED", 1)
    whole(Loader(clip, split))
    assert f"cache: keeping 120 KiB of pixels in {own_cache / 'pixels'} for later" in capsys.readouterr().err


def test_what_was_used_longest_ago_makes_room(clip: Clip, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry takes 120 KiB and a header."""
    monkeypatch.setenv("RBFT_CACHE_LIMIT", "250KiB")
    assert isinstance(split.images, FileImages)
    borders = {border: replace(split, images=replace(split.images, border=border)) for border in (0, 1, 2)}
    for border in (0, 1, 0, 2):
        whole(Loader(clip, borders[border]))
        time.sleep(0.01)
    assert len(entries()) == 2
    monkeypatch.setattr(FileImages, "raw", lambda self, index: pytest.fail("decoded again"))
    for border in (0, 2):  # 1 was used longest ago
        whole(Loader(clip, borders[border]))


def test_a_limit_that_is_no_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBFT_CACHE_LIMIT", "plenty")
    with pytest.raises(RbftError, match=r"RBFT_CACHE_LIMIT: 'plenty' is no size; write e\.g\. 500MiB or 20GiB"):
        cache.limit()


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("1.5 KB", 1536), ("2MiB", 2**21), ("3g", 3 * 2**30), ("1TB", 2**40)]
)
def test_sizes_in_words(text: str, size: int) -> None:
    assert cache.parse_size(text, "--to") == size


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (21 * 2**30, "21.0 GiB")])
def test_words_for_sizes(size: int, text: str) -> None:
    assert cache.size_text(size) == text


def test_arrays_of_the_models_own_size_are_never_kept(clip: Clip) -> None:
    whole(Loader(clip, tiny.Tiny("tiny").split("test")))
    assert not entries()


@pytest.fixture(autouse=True)
def no_thread_stays(clip: Clip) -> Iterator[None]:
    """Decoding threads end with their loader."""
    import gc
    import threading

    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while any(t.name.startswith("decode") for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("decode")]

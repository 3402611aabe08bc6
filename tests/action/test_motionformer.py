"""Converters, recipes, several labels a clip, EPIC-Kitchens: what belongs to Motionformer beside its layers."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saccade.action import Motionformer, motionformer_base, motionformer_hr, motionformer_large
from saccade.action.checkpoints import convert_motionformer, load_motionformer_checkpoint, motionformer_from
from saccade.action.datamodule import ActionData
from saccade.action.datasets import read_epic, timestamp_seconds
from saccade.action.metrics import TopK
from saccade.action.task import ActionClassification, start_from
from saccade.cli.main import main
from saccade.data.clips import open_clip
from saccade.data.transforms import EvalTransform, Normalize, TrainTransform, augmentation
from saccade.nn.input_spec import InputSpec
from saccade.training.cli import run
from saccade.training.recipes import recipes
from tests.action import layouts

pytestmark = [
    pytest.mark.filterwarnings("ignore:Something-Something"),
    pytest.mark.filterwarnings("ignore:EPIC-Kitchens"),
    pytest.mark.filterwarnings("ignore:.*LightningCLI's.*"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps.*"),
]

TINY = {"image_size": 224, "patch_size": 112, "frames": 4, "dim": 24, "depth": 2, "heads": 3, "num_classes": 5}


def tiny(**options: object) -> Motionformer:
    torch.manual_seed(0)
    return Motionformer(**{**TINY, "value_projection": False, **options}).eval()


def official(model: Motionformer) -> dict[str, Tensor]:
    """Our weights under the authors' keys."""
    state = {}
    for key, value in model.state_dict().items():
        key = re.sub(r"^patch_embed\.", "patch_embed_3d.proj.", key)
        key = re.sub(r"^pre_logits\.", "pre_logits.fc.", key)
        key = key.replace("head.verb", "head0").replace("head.noun", "head1")
        state[key] = value
    patch = model.patch_size
    return state | {
        "patch_embed.proj.weight": torch.randn(24, 3, patch, patch),
        "patch_embed.proj.bias": torch.zeros(24),
    }


@pytest.mark.parametrize("attention", ["trajectory", "joint", "divided"])
@pytest.mark.parametrize("pos_embed", ["separate", "joint"])
def test_the_model_is_built_from_the_authors_tensors(attention: str, pos_embed: str) -> None:
    model = tiny(attention=attention, pos_embed=pos_embed)
    state = official(model)
    if pos_embed == "joint":
        state["pos_embed"] = torch.randn(1, 5, 24)  # a table that nothing reads
    built = motionformer_from(state, heads=3)
    video = torch.randn(1, 3, 4, 224, 224)
    assert torch.equal(built(video), model(video))
    assert built.input_spec.channels == "RGB"
    assert (built.input_spec.size, built.input_spec.frames, built.input_spec.mean) == (224, 4, (0.5, 0.5, 0.5))


def test_the_authors_image_kernel_is_dropped_with_tubelets_and_used_without() -> None:
    state = official(tiny())
    assert not any(key.startswith("patch_embed.proj") for key in convert_motionformer(state))
    flat = {key: value for key, value in state.items() if not key.startswith("patch_embed_3d")}
    kernel = convert_motionformer(flat)["patch_embed.weight"]
    assert torch.equal(kernel[:, :, 0], state["patch_embed.proj.weight"])
    assert motionformer_from(flat | {"temp_embed": torch.zeros(1, 4, 24)}, heads=3).tubelet == 1


def test_checkpoints_of_epic_kitchens_have_two_classifiers_and_see_blue_first(tmp_path: Path) -> None:
    model = tiny(num_classes={"verb": 97, "noun": 300})
    torch.save(
        {"epoch": 3, "model_state": official(model), "optimizer_state": {"lr": 1.0}, "cfg": "A: 1"}, tmp_path / "a"
    )
    loaded = load_motionformer_checkpoint(tmp_path / "a", heads=3, stride=3)
    assert loaded.input_spec.channels == "BGR"
    assert loaded.input_spec.stride == 3
    video = torch.randn(1, 3, 4, 224, 224)
    assert torch.equal(loaded(video)["noun"], model(video)["noun"])
    frames = torch.randint(256, (4, 3, 224, 224), dtype=torch.uint8)
    spec = loaded.input_spec
    rgb = InputSpec(spec.size, spec.frames, spec.stride, spec.mean, spec.std)
    torch.testing.assert_close(EvalTransform(spec)(frames), EvalTransform(rgb)(frames).flip(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"surplus": torch.zeros(1)}, "1 key.* not known here: surplus"),
        (lambda s: {k: v for k, v in s.items() if k != "blocks.1.norm1.bias"}, r"missing: blocks\.1\.norm1\.bias"),
        (lambda s: {k: v for k, v in s.items() if k != "temp_embed"}, "not one of Motionformer: pos_embed missing"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("head")}, r"head\.weight missing"),
        (lambda s: s | {"blocks.0.attn.proj.weight": torch.zeros(24, 23)}, "shape"),
    ],
)
def test_conversion_is_strict(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        motionformer_from(change(official(tiny())), heads=3)


def test_a_checkpoint_that_needs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state": official(tiny()), "cfg": main}, tmp_path / "bad.pyth")
    with pytest.raises(ValueError, match=r"bad\.pyth was refused"):
        load_motionformer_checkpoint(tmp_path / "bad.pyth")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_motionformer_checkpoint(tmp_path / "gone.pyth")


def test_the_command_converts(tmp_path: Path) -> None:
    torch.save({"model_state": official(tiny())}, tmp_path / "official.pyth")
    assert main(["convert", "motionformer", str(tmp_path / "official.pyth"), str(tmp_path / "ours.safetensors")]) == 0
    twin = tiny()
    torch.nn.init.zeros_(twin.cls_token)
    start_from(twin, str(tmp_path / "ours.safetensors"))
    assert torch.equal(twin.cls_token, tiny().cls_token)
    other = tiny(num_classes={"verb": 4, "noun": 6})  # another data set: the classifiers stay
    head = other.head["verb"].weight.clone()
    start_from(other, str(tmp_path / "ours.safetensors"))
    assert torch.equal(other.head["verb"].weight, head)
    assert torch.equal(other.blocks[1].mlp.fc1.weight, tiny().blocks[1].mlp.fc1.weight)


def test_the_model_gives_logits_in_eval_mode_too() -> None:
    """The authors' model gives probabilities in eval mode."""
    said = tiny(num_classes=5)(10 * torch.randn(1, 3, 4, 224, 224))
    assert abs(float(said.detach().sum()) - 1) > 1e-3


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        base, hr, large = motionformer_base(), motionformer_hr(), motionformer_large()
    assert abs(sum(p.numel() for p in base.parameters()) / 1e6 - 109) < 1.5
    assert (hr.pos_embed.shape, hr.input_spec.size) == (base.pos_embed.shape, 336)
    assert (large.temp_embed.shape[1], large.input_spec.stride) == (16, 3)


def test_epic_kitchens(tmp_path: Path) -> None:
    root = layouts.epic(tmp_path)
    split = read_epic(root, "train")
    found = [(r.path.name, r.label, r.first, r.frames, r.fps) for r in split.records]
    assert found == [
        ("P01_01", (3, 10), 8, 15, 60.0),
        ("P01_01", (0, 299), 18, 13, 60.0),
        ("P02_101", (96, 0), 1, 12, 50.0),
    ]
    clip, later = (open_clip(record) for record in split.records[:2])
    assert len(clip) == 15
    assert torch.equal(clip.read([10]), later.read([0]))  # frames 8 + 10 and 18 of one video
    assert not torch.equal(clip.read([0]), later.read([0]))


def test_epic_kitchens_says_how_many_segments_were_published(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="EPIC-Kitchens-100 val has 9668 clips where published; this list has 1"):
        read_epic(layouts.epic(tmp_path, media=False), "val")


def test_timestamps_keep_all_their_digits(tmp_path: Path) -> None:
    """The authors' parser divides the fraction's digits by 100, however many there are."""
    assert timestamp_seconds("00:00:01.089") == 1.089
    assert timestamp_seconds("01:01:01.5") == 3661.5
    text = (layouts.epic(tmp_path, media=False) / "EPIC_100_train.csv").read_text()
    (tmp_path / "EPIC_100_train.csv").write_text(text.replace(",1,12,", ",,,"))  # no frames: from the times
    record = read_epic(tmp_path, "train").records[2]
    assert (record.first, record.frames) == (1, 13)  # 0.010 s and 0.250 s at 50 frames a second: 1 to 13
    for wrong in ("1.5", "00:61:00", "00:00:01:2", "a:b:c"):
        with pytest.raises(ValueError, match="expected a time such as"):
            timestamp_seconds(wrong)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",verb_class,", ",verb_group,", "line 1: no column verb_class"),
        (",18,30,", ",30,18,", "line 3: expected classes from 0 and a start before the stop"),
        (",cup,299,", ",cup,many,", "line 3: expected classes"),
        (",cup,299,", ",cup,-1,", "line 3: expected classes"),
    ],
)
def test_malformed_lists_of_epic_kitchens(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = layouts.epic(tmp_path, media=False) / "EPIC_100_train.csv"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_epic(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"EPIC_100_validation\.csv"):
        read_epic(tmp_path / "gone", "val")


def test_labels_beyond_the_classes_are_an_error_at_the_start(tmp_path: Path) -> None:
    data = ActionData("epic", str(layouts.epic(tmp_path)), num_classes={"verb": 97, "noun": 299})
    with pytest.raises(ValueError, match=r"label \(0, 299\), outside"):
        data.split("train")


def test_an_action_is_right_where_verb_and_noun_are() -> None:
    verb, noun = (torch.rand(200, k).softmax(1) for k in (4, 6))
    label = torch.stack([torch.randint(4, (200,)), torch.randint(6, (200,))], 1)
    right = (verb.argmax(1) == label[:, 0]) & (noun.argmax(1) == label[:, 1])
    action, nouns = TopK([0, 1]), TopK([1], 3)
    for rows in torch.arange(200).split(64):
        action.update([verb[rows], noun[rows]], label[rows])
        nouns.update([verb[rows], noun[rows]], label[rows])
    assert float(action.compute()) == pytest.approx(float(right.float().mean()))
    among = (noun.topk(3).indices == label[:, 1:]).any(1).float().mean()
    assert float(nouns.compute()) == pytest.approx(float(among))
    tied = TopK([0])
    tied.update([torch.full((3, 4), 0.25)], torch.tensor([[0], [1], [3]]))
    assert float(tied.compute()) == pytest.approx(1 / 3)  # the smallest class wins
    with pytest.raises(ValueError, match="at least one label"):
        TopK([])


def several() -> ActionClassification:
    model = Motionformer(32, 16, frames=4, dim=24, depth=1, heads=3, num_classes={"verb": 4, "noun": 6})
    return ActionClassification(model, {"verb": 4, "noun": 6})


def test_several_labels_in_the_task() -> None:
    task, video = several().eval(), torch.randn(2, 3, 3, 4, 32, 32)
    label = torch.tensor([[1, 5], [3, 0]])
    said = task(video)
    one = torch.stack([task.backbone(video[:, v])["noun"].softmax(1) for v in range(3)]).mean(0)
    torch.testing.assert_close(said["noun"], one)
    logits = task.backbone(video[:, 0])
    expected = (
        sum(torch.nn.functional.cross_entropy(logits[n], label[:, i]) for i, n in enumerate(("verb", "noun"))) / 2
    )
    torch.testing.assert_close(task.training_step({"video": video[:, 0], "label": label}, 0), expected)
    for wrong, message in ((label + 3, "labels go from 4 to 6: 0 to 3"), (label[:, 0], r"labels have to be \(b, 2\)")):
        with pytest.raises(ValueError, match=message):
            task.training_step({"video": video[:, 0], "label": wrong}, 0)
    empty = task.predict_step({"video": torch.zeros(0), "label": torch.zeros(0, 2, dtype=torch.int64)})
    assert {name: p.shape for name, p in empty.probabilities.items()} == {"verb": (0, 4), "noun": (0, 6)}


SMALL = [
    "--model.init_args.pretrained=null",
    "--model.init_args.backbone.init_args.image_size=32",
    "--model.init_args.backbone.init_args.dim=24",
    "--model.init_args.backbone.init_args.depth=2",
    "--model.init_args.backbone.init_args.heads=3",
    "--model.init_args.backbone.init_args.frames=4",
    "--data.init_args.size=32",
    "--data.init_args.shortest=[32,40]",
    "--data.init_args.frames=4",
    "--data.init_args.batch_size=2",
    "--data.init_args.num_workers=0",
    "--data.init_args.test_clips=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.fast_dev_run=true",
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("recipe", "layout"), [("kinetics", "kinetics"), ("kinetics600", "kinetics"), ("ssv2", "ssv2"), ("epic", "epic")]
)
def test_recipes_run(tmp_path: Path, recipe: str, layout: str) -> None:
    root = {**layouts.LAYOUTS, "epic": layouts.epic}[layout](tmp_path / "data")
    words = [
        "--config",
        f"action/motionformer-{recipe}",
        f"--folder={tmp_path}",
        f"--data.init_args.root={root}",
        *SMALL,
    ]
    fitted = run("fit", words)
    assert torch.isfinite(fitted.trainer.callback_metrics["train/loss"])
    metrics = run("test", words).trainer.callback_metrics
    assert 0 <= float(metrics["test/action" if recipe == "epic" else "test/top1"]) <= 1


def test_recipes_state_figure_cost_start_layout_and_command() -> None:
    ours = [path for name, path in recipes().items() if name.startswith("action/motionformer")]
    assert len(ours) == 4
    for path in ours:
        head = re.match(r"(#.*\n)+", path.read_text())[0]
        for word in ("Expected:", "Cost:", "Command:", "Layout:", "Start:"):
            assert word in head, f"{path.name} lacks {word}"
        assert f"action/{path.stem} " in head


def test_augmentations_are_the_same_for_all_frames_and_leave_the_label() -> None:
    frames = torch.randint(256, (1, 3, 40, 40), dtype=torch.uint8).expand(4, -1, -1, -1).contiguous()
    changed = 0
    for kind in ("colour", "randaugment"):
        transform = TrainTransform(InputSpec(32), augment=augmentation(kind), crop=torch.nn.Identity())
        for _ in range(4):
            clip, label = transform(frames, (3, 4))
            assert label == (3, 4)
            assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(4))
            changed += not torch.equal(clip, Normalize()(frames))
    assert changed > 0
    assert augmentation("none") is None


@pytest.mark.usefixtures("unchecked")
def test_unknown_augmentation() -> None:
    with pytest.raises(ValueError, match="'randaugment' and 'autoaugment', not 'mixup'"):
        augmentation("mixup")

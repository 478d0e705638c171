"""What the benchmark's rows do: a function a row, which sets up one side and returns the work that
is timed.

A work may return a tensor or several, by which the two sides are compared (labels, or a value and
gradients), or a dict with the row's figure where that is not the time of the work. Imports are
inside: a side loads what its users would load.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZE = (1024, 2048)
Work = Callable[[], Any]


def adc(ours: bool, dtype: str) -> Work:
    """ADC's deformable convolution on a crop of 769, forward and backward, with modulation."""
    import torch
    import torchvision.ops

    from cyclenet.models.deform import deform_conv2d

    torch.manual_seed(0)
    x = torch.randn(1, 256, 193, 193)
    if ours:
        x = x.contiguous(memory_format=torch.channels_last)
    offset, mask = 2 * torch.randn(1, 18, 193, 193), torch.rand(1, 9, 193, 193)
    weight, direction = 0.02 * torch.randn(256, 256, 3, 3), torch.randn(1, 256, 193, 193)
    leaves = [tensor.requires_grad_() for tensor in (x, offset, mask, weight)]

    def work() -> Any:
        if ours:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
                out = deform_conv2d(x, offset, mask, weight, 1)
        else:  # Its kernel takes float32 only.
            out = torchvision.ops.deform_conv2d(x, offset, weight, padding=1, mask=mask)
        return torch.autograd.grad(out, leaves, direction.to(out.dtype))

    return work


def _batch(size: int = 256) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(1)
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    return image, torch.randint(0, 19, (2, size, size), dtype=torch.uint8)


def _net(**changes: Any) -> Any:
    import torch

    from cyclenet.config.model import ModelConfig
    from cyclenet.models.cyclenet import build_model

    torch.manual_seed(0)
    return build_model(ModelConfig(backbone_weights="none", **changes), 19)


def _sgd(parameters: Any, **options: Any) -> Any:
    import torch

    return torch.optim.SGD(parameters, 1e-4, 0.9, weight_decay=1e-4, **options)


def step(ours: bool) -> Work:
    """A training step of the paper's full model; precision auto against float32."""
    if not ours:
        return _step_straightforward()
    from cyclenet.training.trainer import choose_precision

    low = choose_precision("auto", on_gpu=False) == "bf16-mixed"
    return _our_step(_net(), *_batch(), low=low)


def _our_step(net: Any, image: Any, mask: Any, low: bool) -> Work:
    """Return a training step of ours, with fused SGD, the loss in strips and channels-last."""
    import torch

    from cyclenet.config.schema import LossConfig, OptimConfig
    from cyclenet.training.losses import SegmentationLoss
    from cyclenet.training.optim import parameter_groups

    net.train()
    optimizer = _sgd(parameter_groups(net, OptimConfig()), fused=True)
    criterion = SegmentationLoss(LossConfig(), 19, net.grid)

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits, extras = net(image.contiguous(memory_format=torch.channels_last))
            loss = criterion(logits, mask) + 0.4 * criterion(extras["aux"], mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def frozen(ours: bool) -> Work:
    """A training step of CycleASPP on 4 images of 360 x 480 at 1/8, float32: a head on cached
    features, read from their files, or all of the network on the images.
    """
    import torch

    from cyclenet.config.load import compose_config
    from cyclenet.data.loader import ViewDataset, collate
    from cyclenet.data.open import open_split
    from cyclenet.runs.features import open_features, write_features
    from cyclenet.training.optim import parameter_groups
    from cyclenet.training.task import SegmentationTask

    words = ["dataset=scenes", "arm=heads/cycleaspp", "dataset.scenes_size=[360,480]"]
    words += ["dataset.crop_size=[360,480]", "dataset.scenes_train=4", "model.output_stride=8"]
    words += ["model=cyclenet_lite", "model.backbone_weights=none", "model.aux_head=false"]
    if ours:
        words += ["model.freeze_backbone=true", "dataset.views=[1]", "dataset.cache_features=true"]
        words.append(f"dataset.cache_root={tempfile.mkdtemp(prefix='cyclenet-bench-')}")
    cfg = compose_config("train", words)
    source = open_split(cfg.dataset, "train")
    torch.manual_seed(0)
    task = SegmentationTask(cfg, source.classes, source.palette.tolist()).train()
    optimizer = _sgd(parameter_groups(task.net, cfg.optim), fused=True)
    cache = open_features(task.net, cfg, cfg.dataset)
    if cache:
        write_features(cache, task.net, source, cache.views.all(), torch.device("cpu"))
        dataset = ViewDataset(source, cache.views, cache, 0)
    images = [{"image": source.image(n), "mask": source.mask(n), "name": str(n)} for n in range(4)]

    def work() -> None:
        batch = collate([dataset[0, n] for n in range(4)] if cache else images)
        loss = task.loss(task.outputs(batch)[0], batch["mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def _step_straightforward() -> Work:
    from straightforward import Straightforward, loss

    net = Straightforward(_net().train())
    image, mask = _batch()
    optimizer = _sgd(net.parameters())

    def work() -> None:
        logits, extras = net(image)
        total = loss(logits, mask) + 0.4 * loss(extras["aux"], mask)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return work


def lite_step(ours: bool) -> Work:
    """A training step of cyclenet_lite on 4 x 256 x 256 against segmentation_models_pytorch's
    DeepLabV3+ on the same backbone (tf_efficientnet_lite0) at the same stride, 16, in float32.
    """
    import torch

    torch.manual_seed(1)
    image = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8)
    mask = torch.randint(0, 19, (4, 256, 256), dtype=torch.uint8)
    if ours:
        from cyclenet.models.cyclenet import build_model

        return _our_step(build_model(_lite(), 19), image, mask, low=False)
    import segmentation_models_pytorch as smp

    name = "tu-tf_efficientnet_lite0"
    peer = smp.DeepLabV3Plus(
        name, encoder_weights=None, encoder_output_stride=16, classes=19
    ).train()
    plain, sgd = (image.float() - 120) / 60, _sgd(peer.parameters())

    def other() -> None:
        loss = torch.nn.functional.cross_entropy(peer(plain), mask.long(), ignore_index=255)
        sgd.zero_grad()
        loss.backward()
        sgd.step()

    return other


def step_smp(ours: bool) -> Work:
    """A training step against that of its DeepLabV3+ with ResNet-101 at output stride 8, which has
    no auxiliary head.
    """
    if ours:
        return step(True)
    import segmentation_models_pytorch as smp
    import torch

    torch.manual_seed(0)
    net = smp.DeepLabV3Plus(
        "resnet101", encoder_weights=None, encoder_output_stride=8, classes=19
    ).train()
    image, mask = _batch()
    image = (image.float() - 120) / 60
    optimizer = _sgd(net.parameters())

    def work() -> None:
        loss = torch.nn.functional.cross_entropy(net(image), mask.long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def step_mmseg(ours: bool) -> Work:
    """A training step against that of its DeepLabV3+ with ResNet-101 at output stride 8 and an
    auxiliary head.
    """
    if ours:
        return step(True)
    import mmseg
    import torch
    from mmengine.config import Config
    from mmengine.optim import OptimWrapper
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(
        Path(mmseg.__file__).parent / ".mim/configs/_base_/models/deeplabv3plus_r50-d8.py"
    )
    cfg.model.update(pretrained=None)
    cfg.model.backbone.update(depth=101, norm_cfg={"type": "BN", "requires_grad": True})
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = {"type": "BN", "requires_grad": True}
    cfg.model.data_preprocessor.size = (256, 256)
    net = MODELS.build(cfg.model).train()
    image, mask = _batch()
    samples = []
    for each in mask:
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=each[None].long()), metainfo={"img_shape": (256, 256)}
            )
        )
    data = {"inputs": list(image), "data_samples": samples}
    wrapper = OptimWrapper(torch.optim.SGD(net.parameters(), 1e-4, 0.9, weight_decay=1e-4))
    return lambda: net.train_step(data, wrapper) and None


def evaluation(ours: bool, dtype: str) -> Work:
    """Labels of an image of 512 x 1024; ours as `src/evaluate.py` predicts them."""
    import torch
    from straightforward import Straightforward, labels

    net = _net().eval()
    torch.manual_seed(1)
    coarse = torch.rand(1, 3, 16, 32)  # Patches of colour: noise alone gives all pixels alike.
    image = (255 * torch.nn.functional.interpolate(coarse, (512, 1024), mode="nearest")).byte()
    if not ours:
        plain = Straightforward(net)

        def whole() -> Any:
            with torch.inference_mode():
                return labels(plain(image)[0], (512, 1024)).byte()

        return whole
    from cyclenet.config.schema import ProtocolConfig
    from cyclenet.scoring.inference import predict

    def work() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            return predict(lambda view: net(view)[0], image, ProtocolConfig(), net.grid)

    return work


def deployed(ours: bool, compiled: bool) -> Work:
    """Logits of an image of 360 x 480 from cyclenet_lite: ours by onnxruntime, from a file; the
    peer's by PyTorch, as it is or compiled for this size.
    """
    import tempfile
    from pathlib import Path

    import torch

    from cyclenet.deploy.export import Deployed, write_onnx
    from cyclenet.deploy.load import open_session
    from cyclenet.models.cyclenet import build_model

    torch.manual_seed(0)
    net = build_model(_lite(), 19).eval().requires_grad_(False)
    image = 255 * torch.rand(1, 3, 360, 480)
    if ours:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            write_onnx(net, "logits", path, {})
            session = open_session(path)
        return lambda: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    module: Any = Deployed(net, "logits")
    if compiled:
        module = torch.compile(module)

    def work() -> Any:
        with torch.inference_mode():
            return module(image)

    return work


def eval_ms(ours: bool) -> Work:
    """All that follows the forward passes of 5 scales with flip; the logits, at 1/4 of each scale,
    are there before.
    """
    import torch
    import torch.nn.functional as F

    from cyclenet.config.schema import ProtocolConfig
    from cyclenet.models.resize import Grid
    from cyclenet.scoring.inference import merge, predict_views

    protocol = ProtocolConfig(scales=[0.75, 1, 1.25, 1.5, 1.75], flip=True)
    torch.manual_seed(0)
    with torch.inference_mode():

        def network(view: Any) -> Any:
            return 3 * torch.randn(view.shape[0], 19, view.shape[2] // 4, view.shape[3] // 4)

        grid = Grid(8, False)
        scales = predict_views(network, torch.zeros(1, 3, *SIZE), protocol, grid)
        raw = [(s.size, *s.windows[0].logits) for s in scales]

    @torch.inference_mode()
    def work() -> Any:
        found = torch.empty(1, *SIZE, dtype=torch.uint8)
        for rows, probabilities in merge(scales, SIZE, protocol, grid):
            found[:, rows] = probabilities.max(1).indices
        return found

    @torch.inference_mode()
    def running_sum() -> Any:
        total = torch.zeros(1, 19, *SIZE)
        for size, *both in raw:
            for mirrored, logits in enumerate(both):
                view = F.interpolate(logits, size, mode="bilinear").softmax(1)
                view = F.interpolate(view, SIZE, mode="bilinear")
                total += view.flip(-1) if mirrored else view
        return (total / 10).argmax(1).byte()

    return work if ours else running_sum


def context(ours: bool, recompute: bool) -> Work:
    """CycleASPP at the paper's widths, forward and backward; the figure is what the forward pass
    keeps for the backward one.

    Parameters and the input do not count: the backbone keeps the latter in any case.
    """
    import torch
    from straightforward import context as concatenated

    from cyclenet.models.contexts.cycleaspp import CycleASPP

    torch.manual_seed(0)
    module = CycleASPP(2048, recompute=recompute).train()
    x = torch.randn(1, 2048, 97, 97)
    if ours:
        module, x = (each.to(memory_format=torch.channels_last) for each in (module, x))
    x.requires_grad_()
    own = {
        tensor.untyped_storage()._cdata for tensor in [x, *module.parameters(), *module.buffers()]
    }

    def work() -> dict[str, float]:
        kept: dict[int, Any] = {}

        def keep(tensor: Any) -> Any:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = module(x) if ours else concatenated(module, x)
        total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
        kept.clear()
        out.sum().backward()
        return {"MiB": total / 2**20}

    return work


def loss(ours: bool) -> Work:
    """The loss of ADE20K's classes on crops of 512 from logits at 1/4, with its gradient."""
    import torch
    from straightforward import loss as whole

    from cyclenet.config.schema import LossConfig
    from cyclenet.models.resize import Grid
    from cyclenet.training.losses import SegmentationLoss

    torch.manual_seed(0)
    logits, mask = (
        torch.randn(2, 150, 128, 128, requires_grad=True),
        torch.randint(0, 150, (2, 512, 512), dtype=torch.uint8),
    )
    criterion = SegmentationLoss(LossConfig(), 150, Grid(8, False)) if ours else whole

    def work() -> Any:
        value = criterion(logits, mask)
        return value.detach().view(1), torch.autograd.grad(value, logits)[0]

    return work


def metric(ours: bool) -> Work:
    """From the logits of a Cityscapes image to its confusion matrix."""
    import torch
    import torch.nn.functional as F
    from torchmetrics.classification import MulticlassConfusionMatrix

    from cyclenet.config.schema import ProtocolConfig
    from cyclenet.models.resize import Grid
    from cyclenet.scoring.inference import predict
    from cyclenet.scoring.metrics import ConfusionMatrix

    torch.manual_seed(0)
    logits = torch.randn(1, 19, 256, 512)
    mask = torch.randint(0, 20, (1, *SIZE), dtype=torch.uint8)
    mask[mask == 19] = 255
    image = torch.zeros(1, 3, *SIZE)
    if ours:
        matrix: Any = ConfusionMatrix(19)

        def work() -> Any:
            matrix.reset()
            matrix.update(
                predict(lambda view: logits, image, ProtocolConfig(), Grid(8, False)), mask
            )
            return matrix.compute()

        return work
    matrix = MulticlassConfusionMatrix(19, ignore_index=255, validate_args=False)

    def stock() -> Any:
        matrix.reset()
        matrix.update(F.interpolate(logits, SIZE, mode="bilinear").argmax(1), mask.long())
        return matrix.compute()

    return stock


def pairs(folder: Path) -> Path:
    """Return a folder in Cityscapes' layout: the user's own ($CITYSCAPES_ROOT), or pairs as large
    and as hard to decode.
    """
    if root := os.environ.get("CITYSCAPES_ROOT"):
        return Path(root)
    from PIL import Image

    from cyclenet.config.schema import DatasetConfig
    from cyclenet.data.cityscapes import Cityscapes
    from cyclenet.data.open import open_split

    scenes = open_split(DatasetConfig(scenes_size=list(SIZE), scenes_train=5), "train")
    rng = np.random.default_rng(0)
    to_id = np.zeros(256, np.uint8)
    to_id[: len(Cityscapes.server_ids)] = Cityscapes.server_ids
    for i in range(5):
        # A camera's noise, by which the files are as large as real ones: 2.3 MB.
        image = np.clip(scenes.image(i) + rng.normal(0, 1.2, (*SIZE, 1)), 0, 255).astype(np.uint8)
        for part, kind, array in (
            ("leftImg8bit", "", image),
            ("gtFine", "_labelIds", to_id[scenes.mask(i)]),
        ):
            path = folder / part / "train/made" / f"made_{i:06d}_000019_{part}{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return folder


def data(ours: bool, cache: str, peer: str = "torchvision") -> Work:
    """Ten samples of one loader process: crops of 769, normalised; the figure is one's time."""
    import torch

    from cyclenet.data.cityscapes import Cityscapes

    torch.set_num_threads(1)
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    root = pairs(folder / "data")
    loaders = {"torchvision": _torchvision_samples, "mmseg": _mmseg_samples}
    sample = _our_samples(root, folder, cache) if ours else loaders[peer](root, folder)
    number = iter(range(10**9))
    decoded = Cityscapes("train", root)

    def work(holder: Any = holder) -> dict[str, float]:
        import time

        start = time.perf_counter()
        for _ in range(10):
            image = sample(next(number))
        figures = {"ms": 100 * (time.perf_counter() - start)}
        assert image.shape[-2:] == (769, 769) and image.dtype == torch.float32
        if ours and cache == "never":  # What no loader of ours could save.
            start = time.perf_counter()
            for index in range(10):
                decoded.image(index % len(decoded)), decoded.mask(index % len(decoded))
            figures["decoding_ms"] = 100 * (time.perf_counter() - start)
        return figures

    return work


def _our_samples(root: Path, folder: Path, cache: str) -> Callable[[int], Any]:
    import torch

    from cyclenet.config.schema import DatasetConfig
    from cyclenet.data.datamodule import SegmentationData
    from cyclenet.data.loader import TrainDataset, collate
    from cyclenet.data.transforms import TrainTransform
    from cyclenet.models.layers import normalise

    cfg = DatasetConfig(
        name="cityscapes",
        root=str(root),
        val_split="train",
        crop_size=[769, 769],
        batch_size=1,
        cache=cache,
        cache_root=str(folder / "cache"),
    )
    module = SegmentationData(cfg, 0)
    dataset = TrainDataset(module.train_source, TrainTransform(cfg), 0)
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])
    )

    def sample(number: int) -> Any:
        batch = collate(
            [dataset[number // len(module.train_source), number % len(module.train_source)]]
        )
        return normalise(batch["image"], mean, std)  # The model's first layer.

    return sample


def _files(root: Path) -> tuple[list[Path], list[Path]]:
    images = sorted(root.glob("leftImg8bit/train/*/*.png"))
    masks = [
        root / "gtFine/train" / i.parent.name / i.name.replace("leftImg8bit", "gtFine_labelIds")
        for i in images
    ]
    return images, masks


def _torchvision_samples(root: Path, folder: Path) -> Callable[[int], Any]:
    # The steps of its references' training preset, whose default backend is Pillow.
    import torch
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    from cyclenet.data.cityscapes import Cityscapes

    images, masks = _files(root)
    table = torch.from_numpy(Cityscapes.ids.astype(np.uint8))
    transform = v2.Compose(
        [
            v2.RandomResize(768, 2048, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(769, pad_if_needed=True, fill={tv_tensors.Mask: 255, "others": 0}),
            v2.PILToTensor(),
            v2.ToDtype(
                {torch.Tensor: torch.float, tv_tensors.Mask: torch.int64, "others": None},
                scale=True,
            ),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def sample(number: int) -> Any:
        index = number % len(images)
        image = Image.open(images[index]).convert("RGB")
        target = torch.from_numpy(np.array(Image.open(masks[index])))
        image, _ = transform(image, tv_tensors.Mask(table[target.long()]))
        return image

    return sample


def _mmseg_samples(root: Path, folder: Path) -> Callable[[int], Any]:
    # Its Cityscapes pipeline without photometric distortion, and its data preprocessor; its users
    # convert labels beforehand.
    from mmcv.transforms import Compose
    from mmseg.models import SegDataPreProcessor
    from mmseg.utils import register_all_modules
    from PIL import Image

    from cyclenet.data.cityscapes import Cityscapes

    register_all_modules(init_default_scope=True)
    images, masks = _files(root)
    converted = []
    for mask in masks:
        converted.append(folder / mask.name.replace("labelIds", "labelTrainIds"))
        Image.fromarray(Cityscapes.ids.astype(np.uint8)[np.asarray(Image.open(mask))]).save(
            converted[-1]
        )
    pipeline = Compose(
        [
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {
                "type": "RandomResize",
                "scale": (2048, 1024),
                "ratio_range": (0.75, 2.0),
                "keep_ratio": True,
            },
            {"type": "RandomCrop", "crop_size": (769, 769), "cat_max_ratio": 1.0},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PackSegInputs"},
        ]
    )
    preprocessor = SegDataPreProcessor(
        mean=[123.7, 116.3, 103.5],
        std=[58.4, 57.1, 57.4],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(769, 769),
    )

    def sample(number: int) -> Any:
        index = number % len(images)
        sample = {"img_path": str(images[index]), "seg_map_path": str(converted[index])}
        packed = pipeline(sample | {"reduce_zero_label": False, "seg_fields": []})
        batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        return preprocessor(batch, training=True)["inputs"]

    return sample


def startup(ours: bool) -> Work:
    """`python src/train.py --help`; the peer imports Lightning before it reads the words."""
    command = [sys.executable, "src/train.py", "--help"]
    if not ours:
        code = (
            "import sys, runpy; sys.path.insert(0, 'src'); sys.argv = ['src/train.py', '--help']\n"
            "import lightning, torch\nrunpy.run_path('src/train.py', run_name='__main__')"
        )
        command = [sys.executable, "-c", code]
    return lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True) and None


def click(ours: bool) -> Work:
    """The explorer from a click to all maps of the pixel: `cyclenet_lite`, an image of 360 x 480,
    in a real browser.
    """
    import itertools
    import threading

    import torch

    from cyclenet.config.schema import DatasetConfig, TrainConfig
    from cyclenet.data.open import open_split
    from cyclenet.deploy.model import Model
    from cyclenet.lab.explain.explorer import Explorer
    from cyclenet.lab.explain.explorer_app import application
    from cyclenet.lab.explain.features import Explained
    from cyclenet.lab.explain.inputs import Input
    from cyclenet.models.cyclenet import build_model

    dataset = DatasetConfig(scenes_size=[360, 480])
    source = open_split(dataset, "val")
    torch.manual_seed(0)
    net = build_model(_lite(), len(source.classes)).eval()
    model = Model(net, TrainConfig(_lite(), dataset), source.classes, source.palette.tolist())
    image, columns = source.image(0), itertools.count(20, 7)
    if not ours:

        def peer() -> None:
            seen, x = Explained(model, image), next(columns) % 480
            seen.probabilities(x, 180), seen.similarity(x, 180), seen.grad_cam(x, 180), seen.offsets

        return peer
    import uvicorn
    from playwright.sync_api import expect, sync_playwright

    explorer = Explorer(
        [("CycleNet", model)], [Input("street", lambda: image, lambda: None)], 20, 1 << 22
    )
    server = uvicorn.Server(
        uvicorn.Config(application(explorer, ["127.0.0.1"]), port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the explorer's server did not start"
    browser = (
        sync_playwright()
        .start()
        .chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    )
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
    expect(page.get_by_role("status")).to_contain_text("480 x 360 pixels", timeout=60_000)
    box = page.locator("#stage").bounding_box()
    script = """async ([x, y]) => {
      const began = performance.now(), result = document.getElementById("result");
      const done = new Promise(told => new MutationObserver(told).observe(result, {attributeFilter:
      ["data-done"]})); document.getElementById("stage").dispatchEvent(new MouseEvent("click",
      {clientX: x, clientY: y})); await done; await new Promise(requestAnimationFrame);
      return (performance.now() - began) / 1000;
    }"""

    def work() -> dict[str, float]:
        # Timed in the page, to the frame that shows the maps; the driver asks it at intervals,
        # which are longer than that.
        return {
            "s": page.evaluate(
                script,
                [box["x"] + next(columns) % 480 * box["width"] / 480, box["y"] + box["height"] / 2],
            )
        }

    return work


def _lite() -> Any:
    """The model of conf/model/cyclenet_lite.yaml, with random weights."""
    from omegaconf import OmegaConf

    from cyclenet.config.model import ModelConfig
    from cyclenet.config.restore import CONF

    cfg = OmegaConf.merge(
        OmegaConf.structured(ModelConfig), OmegaConf.load(CONF / "model/cyclenet_lite.yaml")
    )
    return OmegaConf.to_object(OmegaConf.merge(cfg, {"backbone_weights": "none"}))

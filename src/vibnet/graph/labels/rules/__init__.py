"""The rule table: aten operator name -> how labels pass through it. No rule means pinned."""

from vibnet.graph.labels.labeller import Rule
from vibnet.graph.labels.rules import compute, layout, picks

_BY_RULE: dict[Rule, str] = {
    compute.pointwise: "pointwise where masked_fill threshold lerp hardswish hardsigmoid "
    "hardtanh relu6 mish celu elu selu softplus log_sigmoid_forward _prelu_kernel prelu",
    compute.first: "native_dropout dropout bernoulli alpha_dropout rrelu_with_noise",
    compute.convolution: "convolution",
    compute.matmul: "mm bmm mv dot",
    compute.addmm: "addmm baddbmm addmv",
    compute.linear: "linear",
    compute.attention: "_scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable",
    compute.batch_norm: "native_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training cudnn_batch_norm _batch_norm_with_update",
    compute.statistics: "native_layer_norm _fused_rms_norm",
    compute.group_norm: "native_group_norm",
    compute.spatial: "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d "
    "avg_pool3d adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d "
    "upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_nearest_exact2d",
    compute.reduction: "linalg_vector_norm norm mean sum amax amin max min prod var std argmax "
    "argmin any all logsumexp",
    compute.softmax: "_softmax _safe_softmax _log_softmax cumsum cumprod",
    compute.factory: "zeros ones full empty rand randn new_zeros new_ones new_full new_empty "
    "scalar_tensor",
    compute.like: "zeros_like ones_like full_like empty_like rand_like randn_like fill zero",
    compute.embedding: "embedding",
    layout.reshape: "view _unsafe_view reshape _reshape_alias flatten unflatten",
    layout.unsqueeze: "unsqueeze",
    layout.squeeze: "squeeze",
    layout.alias: "detach alias clone contiguous _to_copy lift_fresh lift_fresh_copy",
    layout.restride: "as_strided",
    layout.permute: "permute transpose t",
    layout.expand: "expand",
    layout.repeat: "repeat",
    layout.cat: "cat",
    layout.stack: "stack",
    picks.slice_: "slice",
    picks.split: "split split_with_sizes chunk",
    picks.glu: "glu",
    picks.select: "select",
    picks.unbind: "unbind",
    picks.flip: "flip",
    picks.roll: "roll",
    picks.index: "index index_select",
    picks.index_put: "index_put _index_put_impl",
    picks.index_add: "index_add index_copy",
    picks.pad: "constant_pad_nd",
    layout.pixel_shuffle: "pixel_shuffle",
    layout.pixel_unshuffle: "pixel_unshuffle",
    layout.copy_: "copy_ copy",
}
TABLE: dict[str, Rule] = {op: rule for rule, names in _BY_RULE.items() for op in names.split()}

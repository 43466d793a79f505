"""Small modules that a pruned model may hold beside the caller's own: only where asked for."""

from vibnet.layers.attention import Attention as Attention
from vibnet.layers.constant import Constant as Constant
from vibnet.layers.selected import SelectedLinear as SelectedLinear
from vibnet.layers.windows import WindowAttention as WindowAttention

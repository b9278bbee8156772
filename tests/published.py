"""The published configurations of the full-size models, and what is known of their weights: tensors and parameters."""

from iy.bench.unet import SD15, SDXL

UNETS = {"sd15": (SD15, 686, 859_520_964), "sdxl": (SDXL, 1680, 2_567_463_684)}

CLIP_L = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    vocab_size=49408,
    projection_dim=768,
)
CLIP_G = dict(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    vocab_size=49408,
    projection_dim=1280,
    hidden_act="gelu",
)
VIT_H = dict(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=16,
    image_size=224,
    patch_size=14,
    projection_dim=1024,
    hidden_act="gelu",
)
UL2 = dict(
    d_model=4096, d_kv=256, d_ff=16384, num_layers=32, num_heads=16, vocab_size=32128, feed_forward_proj="gated-silu"
)
BYT5_LARGE = dict(
    d_model=1536, d_kv=64, d_ff=3840, num_layers=36, num_heads=16, vocab_size=384, feed_forward_proj="gated-gelu"
)

SDXL_NAMES = {  # a few of the published file's tensors
    "conv_in.weight": (320, 4, 3, 3),
    "add_embedding.linear_1.weight": (1280, 2816),
    "down_blocks.1.attentions.0.proj_in.weight": (640, 640),
    "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
    "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj.weight": (10240, 1280),
    "up_blocks.1.attentions.2.transformer_blocks.1.attn1.to_out.0.bias": (640,),
    "conv_out.bias": (4,),
}

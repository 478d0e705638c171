"""Decoders, a file each; `cyclenet.config.choices.DECODERS` lists them."""
